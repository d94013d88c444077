//! Isolated workspaces: whom they reach, and what becomes of their networks.

use std::net::SocketAddr;

use frostgate::driver::docker::{Docker, Options};
use frostgate::driver::{Driver, DriverError, Status};
use frostgate::model::{Blueprint, Image};

use super::{GRACE, Isolated, Network, blueprint_of, boot, isolated, request, status, until};
use crate::images::{Container, Engine, engine, unique};
use crate::relay::Relay;
use crate::support::Origin;

/// A driver with a scope to itself: another's sweep would take this one's networks for left behind.
fn driver() -> (Docker, String) {
    let scope = unique("scope");
    let options = Options { scope: scope.clone(), ..Options::default() };
    (Docker::connect(options).unwrap(), scope)
}

/// Somebody who can be asked to reach others, and be reached.
struct Party {
    name: String,
    endpoint: SocketAddr,
    boot: String,
}

impl Party {
    async fn start(docker: &Docker, blueprint: &Blueprint, name: &str) -> Self {
        docker.create(blueprint).await.unwrap();
        docker.start(blueprint).await.unwrap();
        let endpoint = docker.inspect(&blueprint.id).await.unwrap().endpoint.unwrap();
        let boot = boot(endpoint).await;
        Self { name: name.to_owned(), endpoint, boot }
    }

    async fn outside(engine: Engine, container: &Container, network: &str) -> Self {
        engine.docker(&["start", &container.name]);
        let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
        let address = engine.docker(&["inspect", "--format", &format, &container.name]);
        let endpoint = format!("{address}:80").parse().unwrap();
        Self { name: container.name.clone(), endpoint, boot: boot(endpoint).await }
    }

    fn fetch(&self, from: &str) -> String {
        let answer = request(self.endpoint, "GET", &format!("/fetch?from={from}")).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// The engine takes its rule out for some milliseconds whenever somebody makes a network, as
    /// other tests do. So one answer is no proof, but several in a row are.
    fn assert_keeps_apart_from(&self, other: &Self) {
        let mut answered = Vec::new();
        for _ in 0..5 {
            let answers = self.asks(other);
            if answers.iter().all(|answer| answer.starts_with("failed: ")) {
                return;
            }
            answered.push(answers);
        }
        panic!("{} reaches {}: {answered:?}", self.name, other.name);
    }

    /// What it gets from another by address and by name.
    fn asks(&self, other: &Self) -> [String; 2] {
        let by_name = format!("{}:{}", other.name, other.endpoint.port());
        [self.fetch(&other.endpoint.to_string()), self.fetch(&by_name)]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn isolated_workspaces_reach_nobody_and_nobody_reaches_them() {
    let Some(engine) = engine() else { return };
    let (docker, _) = driver();
    let ((one, one_made), (other, other_made)) =
        (isolated(Image::new(engine.image())), isolated(Image::new(engine.image())));
    let one = Party::start(&docker, &one, one_made.name()).await;
    let other = Party::start(&docker, &other, other_made.name()).await;
    // Two in a network of theirs, one of which is in the default network as well.
    let network = Network::new(engine);
    let arguments = ["--network", network.name.as_str()];
    let neighbours = ["left", "right"]
        .map(|side| engine.container(&format!("frostgate-{}", unique(side)), &arguments));
    engine.docker(&["network", "connect", "bridge", &neighbours[1].name]);
    let left = Party::outside(engine, &neighbours[0], &network.name).await;
    let right = Party::outside(engine, &neighbours[1], &network.name).await;
    let right_in_default = Party::outside(engine, &neighbours[1], "bridge").await;

    // Names and addresses do lead somewhere where there is no isolation.
    assert_eq!(left.asks(&right), [&right.boot[..]; 2]);
    assert_eq!(right.asks(&left), [&left.boot[..]; 2]);
    assert_eq!(one.asks(&one), [&one.boot[..]; 2]);
    let pairs: Vec<(&Party, &Party)> = [&left, &right, &right_in_default]
        .into_iter()
        .flat_map(|stranger| [(&one, stranger), (&other, stranger)])
        .chain([(&one, &other)])
        .flat_map(|(lonely, stranger)| [(lonely, stranger), (stranger, lonely)])
        .collect();
    assert_eq!(pairs.len(), 14);
    // Each waits until it gives up, so they do that side by side.
    std::thread::scope(|scope| {
        for (asking, asked) in pairs {
            scope.spawn(move || asking.assert_keeps_apart_from(asked));
        }
    });
    drop((neighbours, one_made, other_made));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_network_is_made_once_labelled_and_removed_with_its_workspace() {
    let Some(engine) = engine() else { return };
    let (docker, scope) = driver();
    let (blueprint, made) = isolated(Image::new(engine.image()));
    let id = &blueprint.id;
    docker.create(&blueprint).await.unwrap();
    docker.create(&blueprint).await.unwrap();
    let network =
        |format: &str| engine.docker(&["network", "inspect", "--format", format, made.name()]);
    let labels = "{{index .Labels \"frostgate.id\"}} {{index .Labels \"frostgate.scope\"}}";
    assert_eq!(network(labels), format!("{id} {scope}"));
    let gateway = network("{{(index .IPAM.Config 0).Gateway}}");
    let environment = "{{range .Config.Env}}{{println .}}{{end}}";
    let environment = engine.docker(&["inspect", "--format", environment, made.name()]);
    assert!(environment.contains(&format!("FROSTGATE_CHECK_IN_URL=http://{gateway}:80/")));
    // A Frostgate that has lost its store knows it again, and where to dial it.
    docker.start(&blueprint).await.unwrap();
    engine.docker(&["network", "connect", "bridge", made.name()]);
    let again = Docker::connect(Options { scope, ..Options::default() }).unwrap();
    let found = again.list().await.unwrap();
    assert_eq!(found.iter().map(|found| &found.id).collect::<Vec<_>>(), [id]);
    assert_eq!(found[0].warnings, Vec::<String>::new());
    let sighting = again.inspect(id).await.unwrap();
    assert_eq!(sighting.addresses.len(), 2);
    let prefix = gateway.rsplit_once('.').unwrap().0;
    assert!(sighting.endpoint.unwrap().to_string().starts_with(prefix), "{sighting:?}");
    for _ in 0..2 {
        docker.remove(id).await.unwrap();
        assert!(made.leaves_nothing(engine));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_leaves_what_the_next_attempt_goes_on_with() {
    let Some(engine) = engine() else { return };
    let relay = Relay::new(&unique("relay"));
    let socket = Some(relay.path().to_str().unwrap().to_owned());
    let scope = unique("scope");
    let options = Options { socket, scope, ..Options::default() };
    let docker = Docker::connect(options).unwrap();
    let there = |what: &str, name: &str| {
        engine
            .tries(&[what, "inspect", name])
            .then(|| engine.docker(&[what, "inspect", "--format", "{{.Id}}", name]))
    };
    for (request, what) in
        [("POST /networks/create", "network"), ("POST /containers/create", "container")]
    {
        let (blueprint, made) = isolated(Image::new(engine.image()));
        relay.lose_answers_to(request);
        let lost = docker.create(&blueprint).await;
        assert!(matches!(lost, Err(DriverError::Interrupted { .. })), "{lost:?}");
        relay.lose_nothing();
        let first = until("it is made", async || there(what, made.name())).await;
        docker.create(&blueprint).await.unwrap();
        assert_eq!(there(what, made.name()).as_deref(), Some(&first[..]));
        assert!(there("network", made.name()).is_some());
        docker.start(&blueprint).await.unwrap();
        boot(docker.inspect(&blueprint.id).await.unwrap().endpoint.unwrap()).await;
        docker.remove(&blueprint.id).await.unwrap();
        assert!(made.leaves_nothing(engine));

        // Nor is anything left if it is given up instead.
        relay.lose_answers_to(request);
        docker.create(&blueprint).await.unwrap_err();
        relay.lose_nothing();
        until("it is made", async || there(what, made.name())).await;
        docker.remove(&blueprint.id).await.unwrap();
        assert!(made.leaves_nothing(engine));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_that_were_left_behind_are_swept_up_and_no_others() {
    let Some(engine) = engine() else { return };
    let (docker, scope) = driver();
    let (used, used_made) = isolated(Image::new(engine.image()));
    docker.create(&used).await.unwrap();
    let network = |labels: [&str; 3]| {
        let id = unique("left");
        let made = Isolated(Container { name: format!("frostgate-{id}") });
        let id = format!("frostgate.id={id}");
        let labels = labels.into_iter().chain([id.as_str()]);
        let labels = labels.filter(|label| !label.is_empty()).flat_map(|label| ["--label", label]);
        let arguments: Vec<&str> =
            ["network", "create"].into_iter().chain(labels).chain([made.name()]).collect();
        engine.docker(&arguments);
        made
    };
    let ours = format!("frostgate.scope={scope}");
    let (enabled, managed) = ("frostgate.enable=true", "frostgate.managed=true");
    let left = network([enabled, managed, &ours]);
    let joined = network([enabled, managed, &ours]);
    let of_others = network([enabled, managed, "frostgate.scope=test-of-others"]);
    let unlabelled = network(["", "", ""]);
    let name = format!("frostgate-{}", unique("joiner"));
    let joiner = engine.container(&name, &["--network", joined.name()]);
    engine.docker(&["start", &joiner.name]);
    docker.list().await.unwrap();
    let is_there = |made: &Isolated| engine.tries(&["network", "inspect", made.name()]);
    assert!(!is_there(&left));
    assert!([&used_made, &joined, &of_others, &unlabelled].into_iter().all(is_there));
    // Once nobody is in it any more, it goes too.
    drop(joiner);
    docker.list().await.unwrap();
    assert!(!is_there(&joined));
    docker.start(&used).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_was_pruned_while_its_workspace_was_stopped_is_made_anew() {
    let Some(engine) = engine() else { return };
    let (docker, _) = driver();
    let (blueprint, made) = isolated(Image::new(engine.image()));
    docker.create(&blueprint).await.unwrap();
    docker.start(&blueprint).await.unwrap();
    let first = boot(docker.inspect(&blueprint.id).await.unwrap().endpoint.unwrap()).await;
    docker.stop(&blueprint.id, GRACE).await.unwrap();
    engine.docker(&["network", "rm", made.name()]);
    docker.start(&blueprint).await.unwrap();
    let sighting = docker.inspect(&blueprint.id).await.unwrap();
    assert_ne!(boot(sighting.endpoint.unwrap()).await, first);
    docker.remove(&blueprint.id).await.unwrap();
    assert!(made.leaves_nothing(engine));
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_network_of_that_name_is_left_alone() {
    let Some(engine) = engine() else { return };
    let (docker, _) = driver();
    let (blueprint, made) = isolated(Image::new(engine.image()));
    engine.docker(&["network", "create", made.name()]);
    let refused = docker.create(&blueprint).await.unwrap_err().to_string();
    assert!(refused.contains("a network that is not ours"), "{refused}");
    assert_eq!(status(&docker, &blueprint.id).await, Status::Missing);
    docker.remove(&blueprint.id).await.unwrap();
    assert!(engine.tries(&["network", "inspect", made.name()]));
}

/// To take all of an engine's subnets would be to take them from every other test.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_without_a_subnet_left_is_told_of_with_what_helps() {
    let reasons = [
        "could not find an available, non-overlapping IPv4 address pool among the defaults to \
         assign to the network",
        "all predefined address pools have been fully subnetted",
    ];
    for reason in reasons {
        let engine = Origin::answering(move |request| {
            let answer = |status: &str, body: &str| {
                let length = body.len();
                format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
            };
            match request.line().split(['?', ' ']).take(2).collect::<Vec<_>>()[..] {
                ["GET", "/containers/json"] => answer("200 OK", "[]"),
                ["GET", "/images/app:1/json"] => answer("200 OK", "{}"),
                ["POST", "/networks/create"] => {
                    answer("500 Internal Server Error", &format!("{{\"message\":\"{reason}\"}}"))
                }
                _ => answer("404 Not Found", "{\"message\":\"not found\"}"),
            }
        })
        .await;
        let socket = Some(format!("tcp://{}", engine.address));
        let docker = Docker::connect(Options { socket, ..Options::default() }).unwrap();
        let (blueprint, _container) = blueprint_of(Image { isolate: true, ..Image::new("app:1") });
        let refused = docker.create(&blueprint).await.unwrap_err().to_string();
        assert!(refused.contains(reason), "{refused}");
        assert!(refused.contains("default-address-pools"), "{refused}");
        let calls = engine.received();
        assert!(calls.iter().any(|call| call.path() == "/networks/create"));
        assert!(calls.iter().all(|call| !call.path().starts_with("/containers/create")));
    }
}
