//! Frostgate: a reverse proxy that freezes idle workspaces and thaws them when somebody comes back.
//!
//! It sits in front of workspaces (containers, or local processes), counts who is inside, takes
//! check-ins from the workspaces themselves, freezes the idle ones, and on the next request starts
//! the workspace while it holds that request. This page is the map; each module's first lines say
//! what it is for and why it is so.
//!
//! # Map
//!
//! ```text
//!  clients ──▶ listen ──▶ proxy ──────────────────────────────▶ workspaces
//!              accept     route, gate, headers, upstream          ▲
//!              TLS, h1 / h2     │ lease                           │ start, stop, pause, probe
//!                               ▼                                 │
//!  admins ───▶ api ──────▶ lifecycle ──────────────────────────▶ driver
//!  check-ins   dashboard   gate · machine · actor · deadlines     docker, process, upstream
//!                               │ records
//!                               ▼
//!                             store: SQLite
//! ```
//!
//! Two planes. The **data plane** is one thread per core ([`app`]): each has a runtime of one
//! thread, listeners of its own on the shared ports (`SO_REUSEPORT`) and connections of its own to
//! workspaces. The **control plane** is one runtime on which every workspace has a task, and on
//! which the drivers work. They meet in [`lifecycle::Workspace`]: in its gate, which is one atomic
//! word on the warm path, and in its mailbox. A warm request crosses no thread, takes no contended
//! lock, and asks neither the engine nor a disk.
//!
//! Admins call with a token; on this machine also without one, by a Unix socket in the state
//! directory whose caller the system vouches for. What has to be seen from inside of a workspace is
//! reported by [`cli`]'s `check-in`, which is the same program.
//!
//! # The life of a request
//!
//! [`listen::serve`] accepts a connection, does its TLS handshake and tells its protocol →
//! [`listen::guard`] follows the bytes of HTTP/1 and ends what is not exact, before hyper reads it →
//! `proxy::forward` refuses what is ambiguous, or came over a connection for another host, and sends
//! to HTTPS what should have come by it → `route::find` finds the workspace →
//! [`lifecycle::Workspace::try_enter`] gives a [`lifecycle::Lease`], or
//! [`lifecycle::Workspace::enter`] waits for one, with the body unread: that is `hold`, which sends
//! away what wakes nobody, and shows a `page` to somebody who opens one and has waited for long →
//! `headers::to_workspace` edits the head → `Upstreams::send` takes a connection of the lease's
//! generation or makes one, or a stream of one where the workspace speaks HTTP/2 → the answer's body carries the lease → the last byte is sent, or the
//! client is gone: the body is
//! dropped, the lease with it, and the gate knows. After a 101 the tunnel's task has the lease;
//! where the policy counts traffic it is quiet, and enters the gate for a moment when enough is
//! about to pass.
//!
//! # The life of a freeze
//!
//! A lease that ends leaves the time behind, nothing else. The workspace's one deadline in
//! [`lifecycle::deadlines`] passes → its task asks the rules,
//! [`lifecycle::machine::Machine::handle`] → if the time of the last release is long enough ago:
//! [`lifecycle::gate::Gate::shut_if_idle`], which looks and shuts in one step; if not, the deadline
//! moves to the earliest moment at which it could be → shut: idle upstream connections of that
//! generation are dropped on every thread, quiet tunnels are severed, the driver freezes → frozen;
//! or waking at once, if somebody has come to the gate meanwhile.
//!
//! An admin's stop shuts the gate whoever is inside, and keeps all but navigations from taking
//! seats → those inside have `drain_grace` to finish → what is left is severed: connections are
//! aborted, tunnels say goodbye between two frames ([`lifecycle::Notice`]) → when all are gone, or
//! after a second, the driver freezes.
//!
//! # The life of a wake
//!
//! Whoever finds the gate shut takes a seat and rings for the task → `jobs`: the driver inspects,
//! starts (in turn, when many start) or unpauses, inspects afresh → `ready` asks the workspace
//! itself until it answers; a paused one's first byte proves the thaw before the engine's call
//! returns → [`lifecycle::gate::Gate::open`] admits everybody who waits in the step that opens.
//! The wake belongs to the task: clients may leave.
//!
//! # The life of a look
//!
//! A browser loads the page from [`dashboard`] → it shows a token once, to `api::session`, and the
//! cookie that it got from then on → `dashboard::feed` has `api` say who watches, and for how long →
//! the [`dashboard::Board`] looks at every workspace once a second for all who watch together → each
//! of them is told what is new. What is done on the page is done by calls of [`api`].
//!
//! # The life of a configuration
//!
//! [`app::App::reload`] reads it as a whole or not at all. What it says of workspaces, limits and
//! tokens is told to those who have them; what threads serve is a value that every thread takes over
//! by itself, so no request waits for it. [`app::App::hand_over`] gives a new program the listening
//! sockets, then the store, and with it the right to decide; what the old one still has inside keeps
//! its workspaces awake there, until it has left.
//!
//! # Invariants
//!
//! 1. A lease means that the workspace is up and its endpoint is the current generation's.
//! 2. No request is dispatched between the shut of the gate and the next ready.
//! 3. One driver call per workspace at a time; every driver call may be repeated.
//! 4. The phase changes only through `Machine`, which has no clock and does no I/O.
//! 5. The gate's count is zero exactly when no task moves bytes for that workspace but those of
//!    quiet tunnels. These are known to the gate too, go through it before what counts is passed
//!    on, and are severed before the driver is told of a freeze.
//! 6. A held request ends by ready, failed, removed, time-out or its client's leaving.
//! 7. Every queue, map, wait and body has a limit with a name. Nothing polls; the wait for
//!    readiness, which nobody else can tell, asks again within 25 ms.
//! 8. Nothing that a workspace or an end user sends can reach another workspace, the admin API or
//!    the engine's socket: ids are DNS labels by type, and the engine's names are types too.
//!
//! The gate's part of these is model-checked (`tests/it/gate_model.rs`), the rules' part is
//! asserted after every event, and the whole is swept with requests at every offset around the
//! freeze (`tests/it/race_sweep.rs`, `tests/docker`), and with what passes through quiet tunnels
//! (`tests/it/quiet_tunnels.rs`).
//!
//! # Layering
//!
//! A module uses those that stand beside it here, and itself. A test reads this table and the code.
//! bollard stays in `driver/docker`; rusqlite in `store/sqlite`; rustls in `listen/tls` and
//! `cli`; notify in `app`; hyper in `listen`, `proxy`, `api`, `app` and `cli`; h2 by itself in
//! `proxy/upstream/http2` and `lifecycle/ready`.
//!
//! | module | may use |
//! |---|---|
//! | `clock`, `duration`, `size`, `secrets` | none |
//! | `access_log` | `clock` |
//! | `listen` | `clock` |
//! | `model` | `duration` |
//! | `token` | `model`, `secrets` |
//! | `metrics` | `model` |
//! | `driver` | `model`, `clock`, `duration`, `size`, `metrics` |
//! | `store` | `model`, `clock`, `duration`, `token` |
//! | `lifecycle` | `model`, `clock`, `driver`, `store`, `metrics` |
//! | `proxy` | `lifecycle`, `listen`, `model`, `metrics`, `access_log` |
//! | `api` | `lifecycle`, `store`, `model`, `clock`, `duration`, `size`, `token`, `secrets`, `metrics` |
//! | `dashboard` | `lifecycle`, `model`, `clock` |
//! | `config` | `model`, `duration`, `size`, `token` |
//! | `app`, `cli`, `fuzz` | all |

pub mod app;
pub mod cli;
pub mod config;

pub mod access_log;
pub mod listen;
pub mod proxy;

pub mod api;
pub mod dashboard;

pub mod lifecycle;

pub mod driver;
pub mod store;

pub mod fuzz;

pub mod clock;
pub mod duration;
pub mod metrics;
pub mod model;
pub mod secrets;
pub mod size;
pub mod token;
