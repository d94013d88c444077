//! The connection to the engine: every call has a deadline and fails in one of four ways.
//!
//! bollard opens a connection per call, so there is nothing to keep alive and nothing to reset: an
//! engine that comes back is simply there again. The client itself is made at the first call that
//! finds the socket, because a missing socket must not keep Frostgate from starting.

use std::collections::HashMap;
use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{
    ContainerInspectResponse, ContainerSummary, ImageInspect, Network, NetworkInspect,
};
use bollard::query_parameters::{
    InspectContainerOptions, InspectNetworkOptions, ListContainersOptionsBuilder,
    ListNetworksOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
    StopContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;

use super::labels;
use super::names::{ContainerRef, ImageName, NetworkName, VolumeName};
use crate::driver::DriverError;

/// Inspect, pause and unpause take milliseconds; an engine that needs this long is not well.
pub(super) const QUICK_LIMIT: Duration = Duration::from_secs(30);
/// Creating copies nothing, but the storage driver may have to set a layer up.
pub(super) const CREATE_LIMIT: Duration = Duration::from_secs(60);
/// The lifecycle gives up earlier; this only keeps a call that nobody waits for from living on.
const START_LIMIT: Duration = Duration::from_secs(120);
/// What the engine gets on top of the grace: for the KILL, and for taking the network down.
const STOP_MARGIN: Duration = Duration::from_secs(30);
/// Deleting a large writable layer takes a while.
const REMOVE_LIMIT: Duration = Duration::from_secs(120);
/// bollard's own time-out, in addition to each limit: ours always comes first.
const CLIENT_MARGIN: Duration = Duration::from_secs(5);

/// Where the engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Socket {
    /// A path in the file system.
    Unix(String),
    /// `host:port`, without encryption.
    Tcp(String),
}

impl Socket {
    /// Reads `/path`, `unix:///path`, `tcp://host:port` or `http://host:port`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let path = text.strip_prefix("unix://").unwrap_or(text);
        if path.starts_with('/') {
            return Some(Self::Unix(path.to_owned()));
        }
        let tcp = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://"))?;
        let authority = tcp.trim_end_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
        let valid = !authority.is_empty() && authority.chars().all(plain);
        valid.then(|| Self::Tcp(authority.to_owned()))
    }
}

/// Why the engine did not do as it was told.
#[derive(Clone, Debug)]
pub(super) enum EngineError {
    /// It doesn't answer; nothing was asked of it.
    Unreachable(String),
    /// It was asked, and the connection broke before it had answered.
    Interrupted(String),
    /// It answered, and refused; or we did, in which case there is no status.
    Refused { status: Option<u16>, reason: String },
    /// It didn't answer in time.
    TimedOut(Duration),
}

impl EngineError {
    /// A refusal of our own.
    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { status: None, reason: reason.into() }
    }

    /// The engine's status code, if it answered with one.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => *status,
            Self::Unreachable(_) | Self::Interrupted(_) | Self::TimedOut(_) => None,
        }
    }

    /// What was seen, in words.
    pub(super) fn into_words(self) -> String {
        match self {
            Self::Unreachable(reason)
            | Self::Interrupted(reason)
            | Self::Refused { reason, .. } => reason,
            Self::TimedOut(limit) => format!("no answer within {limit:?}"),
        }
    }

    /// Somebody else is doing the same at this moment.
    pub(super) fn is_in_progress(&self) -> bool {
        match self {
            Self::Refused { status, reason } => {
                *status == Some(409) && reason.contains("in progress")
            }
            Self::Unreachable(_) | Self::Interrupted(_) | Self::TimedOut(_) => false,
        }
    }

    /// A container could not be started because its network is not there any more.
    pub(super) fn is_missing_network(&self) -> bool {
        match self {
            Self::Refused { status, reason } => *status == Some(404) && reason.contains("network"),
            Self::Unreachable(_) | Self::Interrupted(_) | Self::TimedOut(_) => false,
        }
    }

    fn from_client(error: &Error, limit: Duration) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                Self::Refused { status: Some(*status_code), reason: message.trim().to_owned() }
            }
            Error::DockerStreamError { error } => {
                Self::Refused { status: None, reason: error.trim().to_owned() }
            }
            Error::RequestTimeoutError => Self::TimedOut(limit),
            Error::JsonDataError { .. } | Error::JsonSerdeError { .. } => Self::Refused {
                status: None,
                reason: format!("its answer could not be read: {error}"),
            },
            Error::HyperLegacyError { err } if err.is_connect() => {
                Self::Unreachable(root_cause(error))
            }
            Error::HyperLegacyError { .. } | Error::HyperResponseError { .. } => {
                Self::Interrupted(root_cause(error))
            }
            _ => Self::Unreachable(root_cause(error)),
        }
    }
}

/// The innermost reason: `Connection refused (os error 111)` rather than three layers of client.
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// What can be done to one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Start,
    Stop { grace: Duration },
    Pause,
    Unpause,
    Remove,
}

impl Act {
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop { .. } => "stop",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Remove => "remove",
        }
    }

    fn limit(self) -> Duration {
        match self {
            Self::Start => START_LIMIT,
            Self::Stop { grace } => grace.saturating_add(STOP_MARGIN),
            Self::Pause | Self::Unpause => QUICK_LIMIT,
            Self::Remove => REMOVE_LIMIT,
        }
    }
}

/// The engine.
pub(super) struct Engine {
    socket: Socket,
    client: OnceLock<bollard::Docker>,
}

impl Engine {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, client: OnceLock::new() }
    }

    /// The engine in words: `Docker Engine at /var/run/docker.sock`.
    pub(super) fn describe(&self) -> String {
        let (Socket::Unix(place) | Socket::Tcp(place)) = &self.socket;
        format!("Docker Engine at {place}")
    }

    /// The engine does not answer, for whatever reason: for calls that no workspace is named in.
    pub(super) fn unreachable(&self, error: EngineError) -> DriverError {
        DriverError::Unreachable { runtime: self.describe(), reason: error.into_words() }
    }

    /// A client for one call, or for one stream, whose head comes within `limit`.
    pub(super) fn client(&self, limit: Duration) -> Result<bollard::Docker, EngineError> {
        let client = match self.client.get() {
            Some(client) => client,
            None => {
                let client = connect(&self.socket)?;
                self.client.get_or_init(|| client)
            }
        };
        Ok(client.clone().with_timeout(limit.saturating_add(CLIENT_MARGIN)))
    }

    /// One call.
    pub(super) async fn call<T, F>(
        &self,
        limit: Duration,
        request: impl FnOnce(bollard::Docker) -> F,
    ) -> Result<T, EngineError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let answer = request(self.client(limit)?);
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(EngineError::from_client(&error, limit)),
            Err(_) => Err(EngineError::TimedOut(limit)),
        }
    }

    /// Does `act`. The engine takes "it is so already" (304) for success, and so does bollard.
    pub(super) async fn act(&self, container: &ContainerRef, act: Act) -> Result<(), EngineError> {
        let name = container.as_str();
        self.call(act.limit(), |client| async move {
            match act {
                Act::Start => client.start_container(name, None::<StartContainerOptions>).await,
                Act::Stop { grace } => {
                    let options = StopContainerOptionsBuilder::new().t(whole_seconds(grace));
                    client.stop_container(name, Some(options.build())).await
                }
                Act::Pause => client.pause_container(name).await,
                Act::Unpause => client.unpause_container(name).await,
                Act::Remove => {
                    let options = RemoveContainerOptionsBuilder::new().force(true).v(true);
                    client.remove_container(name, Some(options.build())).await
                }
            }
        })
        .await
    }

    /// How a container is; `None`: there is no such container.
    pub(super) async fn inspect(
        &self,
        container: &ContainerRef,
    ) -> Result<Option<ContainerInspectResponse>, EngineError> {
        let name = container.as_str();
        let answer = self.call(QUICK_LIMIT, |client| async move {
            client.inspect_container(name, None::<InspectContainerOptions>).await
        });
        if_there(answer.await)
    }

    /// How a network is; `None`: there is no such network.
    pub(super) async fn network(
        &self,
        network: &NetworkName,
    ) -> Result<Option<NetworkInspect>, EngineError> {
        let name = network.as_str();
        let answer = self.call(QUICK_LIMIT, |client| async move {
            client.inspect_network(name, None::<InspectNetworkOptions>).await
        });
        if_there(answer.await)
    }

    /// What an image says of itself; `None`: the engine doesn't have it.
    pub(super) async fn image(
        &self,
        image: &ImageName,
    ) -> Result<Option<ImageInspect>, EngineError> {
        let name = image.as_str();
        let answer =
            self.call(QUICK_LIMIT, |client| async move { client.inspect_image(name).await });
        if_there(answer.await)
    }

    /// Whether there is such a volume.
    pub(super) async fn has_volume(&self, volume: &VolumeName) -> Result<bool, EngineError> {
        let name = volume.as_str();
        let answer =
            self.call(QUICK_LIMIT, |client| async move { client.inspect_volume(name).await });
        Ok(if_there(answer.await)?.is_some())
    }

    /// Every container with our label, running or not.
    pub(super) async fn labelled(&self) -> Result<Vec<ContainerSummary>, EngineError> {
        let filters = HashMap::from([("label", vec![labels::ENABLE])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        self.call(QUICK_LIMIT, |client| async move { client.list_containers(Some(options)).await })
            .await
    }

    /// Every network with our label.
    pub(super) async fn labelled_networks(&self) -> Result<Vec<Network>, EngineError> {
        let filters = HashMap::from([("label", vec![labels::ENABLE])]);
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        self.call(QUICK_LIMIT, |client| async move { client.list_networks(Some(options)).await })
            .await
    }

    /// Waits until a container that is being removed is gone.
    pub(super) async fn gone(&self, container: &ContainerRef) -> Result<(), EngineError> {
        let options = WaitContainerOptionsBuilder::new().condition("removed").build();
        let name = container.as_str();
        self.call(REMOVE_LIMIT, |client| async move {
            match client.wait_container(name, Some(options)).next().await {
                // The exit code is bollard's error here, and no concern of ours.
                None | Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) => Ok(()),
                Some(Err(Error::DockerResponseServerError { status_code: 404, .. })) => Ok(()),
                Some(Err(error)) => Err(error),
            }
        })
        .await
    }
}

/// Takes a 404 for an answer.
fn if_there<T>(answer: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.status() == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

fn connect(socket: &Socket) -> Result<bollard::Docker, EngineError> {
    let version = bollard::API_DEFAULT_VERSION;
    let seconds = QUICK_LIMIT.as_secs();
    let connected = match socket {
        Socket::Unix(path) => bollard::Docker::connect_with_unix(path, seconds, version),
        Socket::Tcp(address) => bollard::Docker::connect_with_http(address, seconds, version),
    };
    connected.map_err(|error| match error {
        Error::SocketNotFoundError(_) => EngineError::Unreachable("no such socket".to_owned()),
        error => EngineError::Unreachable(root_cause(&error)),
    })
}

/// The engine counts whole seconds; half a second of grace must not become none.
fn whole_seconds(grace: Duration) -> i32 {
    let up = grace.as_secs().saturating_add(u64::from(grace.subsec_nanos() > 0));
    i32::try_from(up).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_paths_or_tcp() {
        let unix = |path: &str| Some(Socket::Unix(path.to_owned()));
        let tcp = |address: &str| Some(Socket::Tcp(address.to_owned()));
        assert_eq!(Socket::parse("/run/d.sock"), unix("/run/d.sock"));
        assert_eq!(Socket::parse("unix:///run/d.sock"), unix("/run/d.sock"));
        assert_eq!(Socket::parse("tcp://10.0.0.1:2375"), tcp("10.0.0.1:2375"));
        assert_eq!(Socket::parse("http://[::1]:2375/"), tcp("[::1]:2375"));
        for bad in ["", "docker.sock", "ssh://host", "tcp://", "tcp://h/path", "npipe:////./pipe"] {
            assert_eq!(Socket::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn grace_is_rounded_up() {
        let seconds = |millis| whole_seconds(Duration::from_millis(millis));
        assert_eq!([seconds(0), seconds(1), seconds(1000), seconds(1500)], [0, 1, 1, 2]);
        assert_eq!(whole_seconds(Duration::MAX), i32::MAX);
    }
}
