//! The files of `deploy/`, as far as they can be checked without Docker and Kubernetes.

use std::{fs, process::Command};

use serde_json::{Value, from_slice};

use crate::support::{
    directory::Directory,
    repository,
    server::{fanfare, temporary_file},
};

fn file(name: &str) -> String {
    let path = repository().join("deploy").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The documents of a YAML file.
fn documents(name: &str) -> Vec<Value> {
    let script = "import json, sys, yaml\nprint(json.dumps(list(yaml.safe_load_all(sys.stdin))))";
    let input = fs::File::open(repository().join("deploy").join(name)).expect("a file");
    let python = repository().join("target/python/bin/python");
    let output = Command::new(python).args(["-c", script]).stdin(input).output();
    let output = output.expect("scripts/test makes this environment");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {complaint}");
    from_slice(&output.stdout).expect("JSON")
}

/// Checks a configuration as `fanfare serve` would.
fn assert_valid(arguments: &[&str], environment: &[(&str, &str)]) {
    let output = fanfare(&[&["serve", "--check"], arguments].concat(), environment);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{environment:?}: {complaint}");
}

#[test]
fn the_kubernetes_resources_fit_together() {
    let documents = documents("kubernetes.yaml");
    let of_kind = |kind: &str, version: &str| {
        let found = documents.iter().find(|document| document["kind"] == kind);
        let found = found.unwrap_or_else(|| panic!("no {kind}"));
        assert_eq!(found["apiVersion"], version, "{kind}");
        assert_eq!(found["metadata"]["name"], "fanfare", "{kind}");
        &found["spec"]
    };
    let deployment = of_kind("Deployment", "apps/v1");
    let labels = &deployment["template"]["metadata"]["labels"];
    assert!(labels.is_object());
    let service = of_kind("Service", "v1");
    let budget = of_kind("PodDisruptionBudget", "policy/v1");
    for selector in [
        &deployment["selector"]["matchLabels"],
        &service["selector"],
        &budget["selector"]["matchLabels"],
    ] {
        assert_eq!(selector, labels);
    }
    let pod = &deployment["template"]["spec"];
    let container = &pod["containers"][0];
    let port = &container["ports"][0];
    assert_eq!((&port["name"], &port["containerPort"]), (&"http".into(), &8080.into()));
    assert_eq!(service["ports"][0]["targetPort"], "http");
    for (probe, path) in [("readinessProbe", "/health/ready"), ("livenessProbe", "/health/live")] {
        assert_eq!(container[probe]["httpGet"]["path"], path);
        assert_eq!(container[probe]["httpGet"]["port"], "http");
    }
    assert_eq!(container["volumeMounts"][0]["name"], pod["volumes"][0]["name"]);
    let rules = &of_kind("Ingress", "networking.k8s.io/v1")["rules"][0];
    let backend = &rules["http"]["paths"][0]["backend"]["service"];
    assert_eq!((&backend["name"], &backend["port"]["name"]), (&"fanfare".into(), &"http".into()));
}

#[test]
fn the_configuration_for_kubernetes_is_valid_and_its_pods_outlive_the_drain() {
    let documents = documents("kubernetes.yaml");
    let data = documents.iter().find_map(|document| document["data"]["fanfare.toml"].as_str());
    let config = temporary_file("toml", data.expect("a configuration"));
    assert_valid(&["--config", &config.display().to_string()], &[]);
    let _ = fs::remove_file(config);
    let parsed = fanfare::Config::from_toml(data.expect("a configuration")).expect("valid");
    let pods = documents.iter().find(|document| document["kind"] == "Deployment");
    let pod = &pods.expect("a Deployment")["spec"]["template"]["spec"];
    let sleep = &pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1];
    let sleep: u64 = sleep.as_str().and_then(|text| text.parse().ok()).expect("seconds");
    let grace = pod["terminationGracePeriodSeconds"].as_u64().expect("seconds");
    assert!(grace > sleep + parsed.server.drain.as_secs() + 1, "{grace} s");
}

#[test]
fn the_composed_services_have_valid_environments() {
    let document = documents("compose.yaml").remove(0);
    for name in ["one", "two"] {
        let service = &document["services"][name];
        let build = &service["build"];
        let context = repository().join("deploy").join(build["context"].as_str().expect("a path"));
        let dockerfile = context.join(build["dockerfile"].as_str().expect("a path"));
        assert!(dockerfile.is_file(), "{}", dockerfile.display());
        let environment = service["environment"].as_object().expect("variables");
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str().expect("a text")))
            .collect();
        assert_valid(&[], &environment);
        assert_eq!(service["depends_on"][0], "redis");
    }
    assert!(document["services"]["redis"]["image"].is_string());
    assert!(document["volumes"].get("redis").is_some(), "the named volume");
}

#[test]
fn the_image_has_the_command_and_a_valid_environment() {
    let dockerfile = file("Dockerfile").replace("\\\n", " ");
    let instructions: Vec<(&str, &str)> = dockerfile
        .lines()
        .filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty())
        .map(|line| line.split_once(' ').unwrap_or_else(|| panic!("no instruction: {line}")))
        .collect();
    let of = |name: &str| {
        let found = instructions.iter().filter(move |(instruction, _)| *instruction == name);
        found.map(|(_, arguments)| *arguments).collect::<Vec<_>>()
    };
    let known = ["FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "EXPOSE", "ENTRYPOINT", "CMD"];
    assert!(instructions.iter().all(|(name, _)| known.contains(name)), "{instructions:?}");
    assert!(of("RUN")[0].contains("--package fanfare-cli"));
    assert!(of("COPY")[1].starts_with("--from=build /fanfare/target/release/fanfare "));
    assert_eq!(of("WORKDIR"), ["/fanfare"]);
    assert_eq!(of("ENTRYPOINT"), [r#"["fanfare"]"#]);
    let environment: Vec<(&str, &str)> = of("ENV")[0]
        .split_whitespace()
        .map(|pair| pair.split_once('=').expect("NAME=value"))
        .collect();
    let arguments: Vec<String> = serde_json::from_str(of("CMD")[0]).expect("a list");
    assert_eq!(arguments[0], "serve");
    let arguments: Vec<&str> = arguments[1..].iter().map(String::as_str).collect();
    assert_valid(&arguments, &environment);
}

#[test]
fn systemd_accepts_the_unit() {
    let directory = Directory::new("systemd");
    // The command is not installed here.
    let unit = file("fanfare.service").replace("/usr/local/bin/fanfare", "/bin/true");
    let unit = directory.write("fanfare.service", &unit);
    let output = Command::new("systemd-analyze").arg("verify").arg(unit).output();
    let output = output.expect("scripts/test installs systemd");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{complaint}");
}
