// Runs before anything is painted, so that nobody who wants it dark is blinded first.
const kept = localStorage.getItem("theme");
if (kept) document.documentElement.dataset.theme = kept;
