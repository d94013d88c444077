// Runs before anything is painted: nobody who wants it dark is blinded first, whoever was logged in
// sees the page and not the login, and the feed is asked for while the other scripts are on their way.
const kept = localStorage.getItem("theme"), stop = new AbortController();
if (kept) document.documentElement.dataset.theme = kept;
document.documentElement.classList.toggle("in", localStorage.getItem("in") === "yes");
globalThis.early = { stop, answer: fetch("/dashboard/feed", { signal: stop.signal, headers: { "x-requested-with": "fetch" } }) };
early.answer.catch(() => {});
