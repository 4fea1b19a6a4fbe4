#!/usr/bin/env python3
"""Checks compose/ and k8s/ as files: no container engine, no cluster, no network.

    tests/deploy/check.py --bin target/debug

Part of `./warren test`, which puts kubectl, kubernetes-validate, docker-compose, hadolint and promtool on PATH. Settings
files are read by the services themselves, with the environment that the deployment gives them, so a misspelt key fails here.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import tomllib
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "compose"
K8S = ROOT / "k8s"
DEPLOYMENTS = {"base": K8S / "base", "single-node": K8S / "overlays/single-node", "gpu": K8S / "overlays/gpu"}
SERVICES = ["ingest", "coordinator", "transcription", "batch-embedding"]
WORKERS = ["transcription", "batch-embedding"]

# Who may open a connection to whom; everything else must be impossible. The arrows of the README's picture.
ARROWS = (
    {(service, "rabbitmq", 5672) for service in SERVICES}
    | {(service, "s3", 9000) for service in SERVICES}
    | {(service, "rabbitmq", 15672) for service in ("ingest", "coordinator")}
    | {(service, "postgres", 5432) for service in ("ingest", "coordinator", "migrate")}
    | {(worker, "coordinator", 7071) for worker in WORKERS}
    | {("namespace default", "ingest", 7070), ("namespace monitoring", "ingest", 7070)}
    | {("namespace monitoring", service, 8080 + index) for index, service in enumerate(SERVICES)}
)


class Failure(Exception):
    """What is wrong, for a person."""


def ensure(truth, message):
    if not truth:
        raise Failure(message)


def run(*command, **options):
    """Output of a command that must succeed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **options)
    ensure(done.returncode == 0, f"{' '.join(map(str, command[:3]))} …: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


# ---- what is deployed ----


class Container:
    """One container of Warren's own, from either world."""

    def __init__(self, place, name, service, settings, environment):
        self.place, self.name, self.service = place, name, service
        self.settings_text, self.environment = settings, environment

    def settings(self, binaries):
        """What the service makes of file and environment."""
        path = Path(os.environ.get("TMPDIR", "/tmp")) / f"warren-check-{os.getpid()}.toml"
        path.write_text(self.settings_text)
        try:
            clean = {key: value for key, value in os.environ.items() if not key.startswith("WARREN_")}
            binary = binaries / f"warren-{self.service}"
            ensure(binary.exists(), f"{binary} is missing; run cargo build --workspace --bins")
            text = run(binary, "--config", path, "--print-settings", env={**clean, **self.environment})
        finally:
            path.unlink()
        return tomllib.loads(text)


def compose_model():
    command = ["docker-compose", "-f", COMPOSE / "compose.yaml", "--env-file", COMPOSE / ".env.example", "--profile", "cli"]
    return json.loads(run(*command, "config", "--format", "json"))


def compose_containers(model):
    for name, spec in model["services"].items():
        service = name.removesuffix("-2")
        if service in SERVICES:
            file = model["configs"][spec["configs"][0]["source"]]["file"]
            yield Container("compose", name, service, Path(file).read_text(), spec["environment"])


def rendered(folder):
    return [document for document in yaml.safe_load_all(run("kubectl", "kustomize", folder)) if document]


def of_kind(documents, *kinds):
    return [document for document in documents if document["kind"] in kinds]


def pods(documents):
    """(name, pod template's metadata, pod spec, replicas) of everything that makes pods."""
    for document in of_kind(documents, "Deployment", "StatefulSet", "Job"):
        template = document["spec"]["template"]
        yield document["metadata"]["name"], template["metadata"], template["spec"], document["spec"].get("replicas", 1)


def environment(documents, container):
    """The variables of a container; secrets and pod fields get values of the right form."""
    config = {document["metadata"]["name"]: document["data"] for document in of_kind(documents, "ConfigMap")}
    secrets = {
        "broker-url": "amqp://warren:x@rabbitmq:5672/%2f",
        "store-url": "postgres://warren:x@postgres:5432/warren",
        "s3-access-key": "warren",
        "s3-secret-key": "x",
        "api-keys": '[{caller="me",key="twenty-characters-at-least",operator=true}]',
    }
    fields = {"metadata.name": "coordinator-0", "status.podIP": "10.0.0.1"}
    values = {}
    for entry in container.get("env", []):
        source = entry.get("valueFrom", {})
        if "secretKeyRef" in source:
            ensure(source["secretKeyRef"]["name"] == "warren", f"{entry['name']}: secrets are in `warren`")
            key = source["secretKeyRef"]["key"]
            ensure(key in secrets, f"{entry['name']}: the Secret has no key {key}")
            value = secrets[key]
        elif "configMapKeyRef" in source:
            reference = source["configMapKeyRef"]
            ensure(reference["key"] in config.get(reference["name"], {}), f"{entry['name']}: no {reference} in the ConfigMap")
            value = config[reference["name"]][reference["key"]]
        elif "fieldRef" in source:
            value = fields[source["fieldRef"]["fieldPath"]]
        else:
            value = re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], entry["value"])
        values[entry["name"]] = value
    return values


def k8s_containers(overlay, documents):
    config = {document["metadata"]["name"]: document["data"] for document in of_kind(documents, "ConfigMap")}
    for name, _, spec, _ in pods(documents):
        if name in SERVICES:
            volume = next(volume for volume in spec["volumes"] if volume["name"] == "settings")
            text = config[volume["configMap"]["name"]]["settings.toml"]
            yield Container(overlay, name, name, text, environment(documents, spec["containers"][0]))


def port(address):
    return int(address.rsplit(":", 1)[1])


# ---- compose ----


def check_compose_is_hardened(model):
    for name, spec in model["services"].items():
        ensure(spec.get("mem_limit"), f"{name}: no mem_limit")
        ensure(spec.get("cap_drop") == ["ALL"], f"{name}: cap_drop is not ALL")
        ensure("no-new-privileges:true" in spec.get("security_opt", []), f"{name}: new privileges are possible")
        ensure(not spec.get("privileged"), f"{name}: is privileged")
        if spec["image"].startswith("warren-"):
            ensure(spec.get("read_only"), f"{name}: its root is writable")
        for published in spec.get("ports", []):
            ensure(published.get("host_ip") == "127.0.0.1", f"{name}: port {published['target']} is open to the network")


def check_compose_waits_for_parts(model):
    for name in [*SERVICES, "coordinator-2", "rabbitmq", "postgres", "s3"]:
        ensure(model["services"][name].get("healthcheck", {}).get("test"), f"{name}: no health check")
    for name in ("ingest", "coordinator", "coordinator-2"):
        waits = model["services"][name]["depends_on"]
        ensure(waits["migrate"]["condition"] == "service_completed_successfully", f"{name}: does not wait for migrate")


def check_compose_networks(model):
    ensure(model["networks"]["inside"]["internal"], "the network `inside` has a way out")
    outside = {name for name, spec in model["services"].items() if "outside" in spec["networks"]}
    ensure(outside == {"ingest", "rabbitmq", "models"}, f"on the network `outside`: {sorted(outside)}")


def check_compose_settings(model, binaries):
    understood = [(container, container.settings(binaries)) for container in compose_containers(model)]
    coordinators = [settings for container, settings in understood if container.service == "coordinator"]
    addresses = {settings["grpc"]["advertise"] for settings in coordinators}
    ensure(len({settings["leader"]["name"] for settings in coordinators}) == 2, "coordinators must differ in leader.name")
    for container, settings in understood:
        spec = model["services"][container.name]
        probed = re.search(r":(\d+)/health", " ".join(spec["healthcheck"]["test"]))
        ensure(int(probed[1]) == port(settings["http"]["bind"]), f"{container.name}: the health check asks another port")
        check_drain(container.name, settings, seconds(spec["stop_grace_period"]))
        if container.service == "ingest":
            targets = {published["target"] for published in spec["ports"]}
            expected = {port(settings["grpc"]["bind"]), port(settings["http"]["bind"])}
            ensure(targets == expected, f"ingest publishes {targets}, and listens on {expected}")
        if container.service in WORKERS:
            dialled = set(settings["leases"]["coordinators"])
            ensure(dialled == addresses, f"{container.name} dials {dialled}, not {addresses}")
            mounted = [volume["target"] for volume in spec["volumes"]]
            for folder in (settings["models"]["cache"], settings.get("prepare", {}).get("scratch")):
                ensure(not folder or any(folder.startswith(mount) for mount in mounted), f"{container.name}: {folder} is read-only")


def seconds(text):
    """`1m30s` or `45s`."""
    found = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text)
    return 60 * int(found[1] or 0) + int(found[2] or 0)


def check_drain(name, settings, kill_after_s):
    grace = settings["drain"]["grace_s"]
    ensure(grace < kill_after_s, f"{name}: drain.grace_s {grace} < kill {kill_after_s} must hold")


# ---- Kubernetes ----


def check_schemas(folder):
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"warren-check-{os.getpid()}.yaml"
    path.write_text(run("kubectl", "kustomize", folder))
    try:
        output = subprocess.run(
            ["kubernetes-validate", "--strict", "-k", "1.30.0", path], capture_output=True, text=True, timeout=300
        )
    finally:
        path.unlink()
    lines = (output.stdout + output.stderr).splitlines()
    # It only warns about kinds that it does not know; KEDA's is checked apart.
    bad = [line for line in lines if not line.startswith("INFO") and "Couldn't find schema for kind ScaledObject" not in line]
    ensure(output.returncode == 0 and not bad, "\n".join(bad) or f"exit {output.returncode}")
    ensure(lines, "nothing was validated")


def check_keda(documents, expected):
    schema = json.loads((ROOT / "tests/deploy/keda-scaledobject.schema.json").read_text())
    metrics = (ROOT / "crates/telemetry/src/metrics.rs").read_text()
    targets = {name for name, _, _, _ in pods(documents)}
    found = of_kind(documents, "ScaledObject")
    ensure(len(found) == expected, f"{len(found)} ScaledObjects, not {expected}")
    for document in found:
        name = document["metadata"]["name"]
        jsonschema.validate(document, schema)
        ensure(document["spec"]["scaleTargetRef"]["name"] in targets, f"{name}: scales nothing that exists")
        for trigger in document["spec"]["triggers"]:
            query = trigger["metadata"]["query"]
            ensure("warren_tasks_waiting{kind" in query, f"{name}: does not follow warren_tasks_waiting")
            for metric in re.findall(r"warren_\w+", query):
                ensure(f'"{metric}"' in metrics, f"{name}: no service has the metric {metric}")
    replicas = {document["metadata"]["name"]: document["spec"] for document in of_kind(documents, "Deployment")}
    for document in found:
        target = document["spec"]["scaleTargetRef"]["name"]
        ensure("replicas" not in replicas[target], f"{target}: its own replicas fight the ScaledObject")


def check_pods_are_hardened(documents):
    for name, _, spec, _ in pods(documents):
        pod = spec["securityContext"]
        ensure(pod["runAsNonRoot"] and pod["runAsUser"] > 0, f"{name}: may run as root")
        ensure(pod["seccompProfile"]["type"] == "RuntimeDefault", f"{name}: no seccomp profile")
        ensure(spec["automountServiceAccountToken"] is False, f"{name}: gets a token that it does not need")
        ensure(spec["enableServiceLinks"] is False, f"{name}: gets variables named after services")
        ensure(spec["serviceAccountName"] == name, f"{name}: shares a service account")
        for container in spec["containers"]:
            security = container["securityContext"]
            ensure(security["allowPrivilegeEscalation"] is False, f"{name}: privileges can grow")
            ensure(security["capabilities"]["drop"] == ["ALL"], f"{name}: keeps capabilities")
            resources = container["resources"]
            ensure("memory" in resources["limits"] and "memory" in resources["requests"], f"{name}: no memory limit or request")
            ensure("cpu" in resources["requests"], f"{name}: no cpu request")
            if container["image"].startswith("warren-"):
                ensure(security["readOnlyRootFilesystem"] is True, f"{name}: its root is writable")
                ensure(re.search(r":\d+\.\d+\.\d+$", container["image"]), f"{name}: image {container['image']} has no version")
        # Volumes on memory or disk must have a bound, or a job could fill the node.
        for volume in spec.get("volumes", []):
            ensure("emptyDir" not in volume or "sizeLimit" in volume["emptyDir"], f"{name}: volume {volume['name']} has no limit")


def check_budgets(documents):
    budgets = {document["metadata"]["name"]: document["spec"] for document in of_kind(documents, "PodDisruptionBudget")}
    for name in SERVICES:
        ensure(budgets[name]["selector"]["matchLabels"]["app.kubernetes.io/name"] == name, f"{name}: no disruption budget")
    replicas = {name: count for name, _, _, count in pods(documents)}
    ensure(replicas["coordinator"] == 2, "two coordinators are expected: one leads, one stands by")


def check_probes_and_settings(overlay, documents, binaries):
    specs = {name: (metadata, spec) for name, metadata, spec, _ in pods(documents)}
    services = {document["metadata"]["name"]: document["spec"] for document in of_kind(documents, "Service")}
    for container in k8s_containers(overlay, documents):
        name = container.name
        metadata, spec = specs[name]
        settings = container.settings(binaries)
        ports = {entry["name"]: entry["containerPort"] for entry in spec["containers"][0]["ports"]}
        ensure(ports["http"] == port(settings["http"]["bind"]), f"{name}: port http is not where the service listens")
        ensure(metadata["annotations"]["prometheus.io/port"] == str(ports["http"]), f"{name}: metrics are scraped elsewhere")
        for probe, path in (("startupProbe", "/health"), ("livenessProbe", "/health"), ("readinessProbe", "/health/ready")):
            asked = spec["containers"][0][probe]["httpGet"]
            ensure((asked["path"], asked["port"]) == (path, "http"), f"{name}: {probe} asks {asked}")
        check_drain(name, settings, spec["terminationGracePeriodSeconds"])
        if "grpc" in settings:
            ensure(ports["grpc"] == port(settings["grpc"]["bind"]), f"{name}: port grpc is not where the service listens")
            served = {entry["name"]: entry for entry in services[name]["ports"]}
            ensure(served["grpc"]["port"] == ports["grpc"], f"{name}: the Service has another port")
        if name in WORKERS:
            ensure(settings["leases"]["coordinators"] == [f"http://coordinator:{services['coordinator']['ports'][0]['port']}"],
                   f"{name}: dials no coordinator")
            mounts = [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"] if not mount.get("readOnly")]
            for folder in (settings["models"]["cache"], settings.get("prepare", {}).get("scratch")):
                ensure(not folder or any(folder.startswith(mount) for mount in mounts), f"{name}: {folder} is read-only")


def check_gpu(documents, binaries):
    containers = {container.name: container.settings(binaries) for container in k8s_containers("gpu", documents)}
    device = containers["transcription"]["leases"]["device"]
    ensure(device == "cuda:0", f"transcription computes on {device}")
    leased = {entry["name"]: entry for entry in containers["coordinator"]["devices"]}
    ensure(leased.get(device, {}).get("max_concurrent") == 1, f"the coordinator does not lease {device} to one at a time")
    spec = next(spec for name, _, spec, _ in pods(documents) if name == "transcription")
    ensure(spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1", "transcription asks for no card")
    ensure(spec["containers"][0]["image"].startswith("warren-transcription-cuda:"), "transcription runs the CPU's image")


def check_same_settings(model):
    """The same keys are set in both worlds, so that a key is not forgotten in one of them."""
    of_compose = {container.service: tomllib.loads(container.settings_text) for container in compose_containers(model)}
    for service in SERVICES:
        ours = tomllib.loads((K8S / f"base/settings/{service}.toml").read_text())
        theirs = of_compose[service]
        keys = lambda table: {f"{section}.{key}" for section, values in table.items() if isinstance(values, dict) for key in values}
        ensure(keys(ours) == keys(theirs), f"{service}: {sorted(keys(ours) ^ keys(theirs))} is set in one of compose/ and k8s/ only")


# ---- who may talk to whom ----


def selects(selector, labels):
    exact = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    for expression in selector.get("matchExpressions", []):
        ensure(expression["operator"] == "In", f"this check knows no operator {expression['operator']}")
        exact = exact and labels.get(expression["key"]) in expression["values"]
    return exact


def peer_matches(peer, other):
    if "ipBlock" in peer:
        return False
    namespace, labels = other
    if "namespaceSelector" in peer:
        inside = selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": namespace})
    else:
        inside = namespace == "warren"
    return inside and selects(peer.get("podSelector", {}), labels)


def allows(policies, direction, own_labels, other, number, port_names):
    """Kubernetes' rule: free until a policy selects the pod, then only what some policy allows."""
    policies = [policy for policy in policies if direction in policy["policyTypes"]]
    policies = [policy for policy in policies if selects(policy["podSelector"], own_labels)]
    if not policies:
        return True
    side = "from" if direction == "Ingress" else "to"
    for policy in policies:
        for rule in policy.get(direction.lower(), []):
            peer = side not in rule or any(peer_matches(peer, other) for peer in rule[side])
            opened = "ports" not in rule or any(
                entry.get("protocol", "TCP") == "TCP" and entry["port"] in (number, port_names.get(number)) for entry in rule["ports"]
            )
            if peer and opened:
                return True
    return False


def check_arrows(documents):
    policies = [document["spec"] for document in of_kind(documents, "NetworkPolicy")]
    members = {}
    for name, metadata, spec, _ in pods(documents):
        ports = {entry["containerPort"]: entry["name"] for container in spec["containers"] for entry in container.get("ports", [])}
        members[name] = (metadata["labels"], ports)
    open_now = set()
    for target, (labels, ports) in members.items():
        for number in ports:
            for source, (source_labels, _) in members.items():
                out = allows(policies, "Egress", source_labels, ("warren", labels), number, ports)
                into = allows(policies, "Ingress", labels, ("warren", source_labels), number, ports)
                if out and into:
                    open_now.add((source, target, number))
            for namespace in ("default", "monitoring"):
                if allows(policies, "Ingress", labels, (namespace, {}), number, ports):
                    open_now.add((f"namespace {namespace}", target, number))
    missing, extra = ARROWS - open_now, open_now - ARROWS
    ensure(not missing, f"closed, but needed: {sorted(missing)}")
    ensure(not extra, f"open, but not an arrow of the design: {sorted(extra)}")


# ---- images ----


def check_dockerfile(path):
    run("hadolint", "--failure-threshold", "info", "--no-color", path)


def check_targets(model):
    """Every image that is deployed is built by a Dockerfile here."""
    targets = set(re.findall(r"^FROM \S+ AS (\S+)", (COMPOSE / "Dockerfile").read_text(), re.M))
    cuda = set(re.findall(r"^FROM \S+ AS (\S+)", (COMPOSE / "Dockerfile.cuda").read_text(), re.M))
    ensure({*SERVICES, "cli"} <= targets, f"compose/Dockerfile lacks {({*SERVICES, 'cli'}) - targets}")
    ensure(set(WORKERS) <= cuda, f"compose/Dockerfile.cuda lacks {set(WORKERS) - cuda}")
    for name, spec in model["services"].items():
        target = spec.get("build", {}).get("target")
        ensure(not target or spec["image"].startswith(f"warren-{target}:"), f"{name}: image {spec['image']} from target {target}")
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    used = {spec["image"] for spec in model["services"].values() if spec["image"].startswith("warren-")}
    ensure(all(image.endswith(f":{version}") for image in used), f"images are not of version {version}: {sorted(used)}")


def check_instructions(documents):
    """Every image that Kubernetes is to run is one that the README, or the overlay's own head, says how to build."""
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    readme = (ROOT / "README.md").read_text()
    loop = re.search(r"^for target in ([\w -]+); do\n(.*?)^done$", readme, re.M | re.S)
    ensure(loop, "README.md does not say how the images are built")
    for step in ("docker build -f compose/Dockerfile --target $target -t", "kind load docker-image"):
        ensure(f"{step} warren-$target:{version}" in loop[2], f"README.md: no `{step} warren-$target:{version}`")
    built = {f"warren-{target}:{version}" for target in loop[1].split()}
    for overlay, found in documents.items():
        head = (DEPLOYMENTS[overlay] / "kustomization.yaml").read_text()
        own = set(re.findall(r"^#.*-t (warren-[\w-]+:[\d.]+) \.$", head, re.M))
        used = {container["image"] for _, _, spec, _ in pods(found) for container in spec["containers"]}
        unknown = {image for image in used if image.startswith("warren-")} - built - own
        ensure(not unknown, f"{overlay}: nothing says how {sorted(unknown)} are built")


def check_alerts():
    """Every rule is tested with figures that fire it and figures that do not, and asks for what Warren measures."""
    metrics = (ROOT / "crates/telemetry/src/metrics.rs").read_text()
    for rules in sorted((K8S / "alerts").glob("*.yaml")):
        if rules.name.endswith(".test.yaml"):
            continue
        run("promtool", "check", "rules", rules)
        tests = rules.with_suffix(".test.yaml")
        ensure(tests.exists(), f"{rules.name} has no {tests.name}")
        run("promtool", "test", "rules", tests)
        fired = {
            case["alertname"]: case["exp_alerts"]
            for test in yaml.safe_load(tests.read_text())["tests"]
            for case in test["alert_rule_test"]
            if case["exp_alerts"]
        }
        for group in yaml.safe_load(rules.read_text())["groups"]:
            alerts = {rule["alert"] for rule in group["rules"] if "alert" in rule}
            ensure(alerts <= fired.keys(), f"{rules.name}: no test has {sorted(alerts - fired.keys())} fire")
            for rule in group["rules"]:
                for name in re.findall(r"\bwarren_\w+", rule["expr"]):
                    ensure(f'"{name}"' in metrics, f"{rules.name}: Warren has no metric {name}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--bin", type=Path, required=True, help="folder of the services' binaries")
    binaries = arguments.parse_args().bin.resolve()

    model = compose_model()
    tests = {
        "compose: hardened": lambda: check_compose_is_hardened(model),
        "compose: waits for its parts": lambda: check_compose_waits_for_parts(model),
        "compose: networks": lambda: check_compose_networks(model),
        "compose: settings are understood": lambda: check_compose_settings(model, binaries),
        "compose: the same keys as k8s": lambda: check_same_settings(model),
        "images: targets and versions": lambda: check_targets(model),
        "images: Dockerfile": lambda: check_dockerfile(COMPOSE / "Dockerfile"),
        "images: Dockerfile.cuda": lambda: check_dockerfile(COMPOSE / "Dockerfile.cuda"),
    }
    documents = {overlay: rendered(folder) for overlay, folder in DEPLOYMENTS.items()}

    def everywhere(check):
        """Runs a check on every overlay and says which one fails it."""
        for overlay, found in documents.items():
            try:
                check(overlay, found)
            except Exception as error:
                raise Failure(f"{overlay}: {error}") from error

    tests |= {
        "k8s: schemas": lambda: everywhere(lambda overlay, _: check_schemas(DEPLOYMENTS[overlay])),
        "k8s: pods are hardened and limited": lambda: everywhere(lambda _, found: check_pods_are_hardened(found)),
        "k8s: disruption budgets": lambda: everywhere(lambda _, found: check_budgets(found)),
        "k8s: scaling": lambda: everywhere(lambda overlay, found: check_keda(found, 0 if overlay == "single-node" else 2)),
        "k8s: probes, ports and settings": lambda: everywhere(
            lambda overlay, found: check_probes_and_settings(overlay, found, binaries)
        ),
        "k8s: only the arrows are open": lambda: check_arrows(documents["single-node"]),
        "k8s: images are built as the README says": lambda: check_instructions(documents),
        "k8s: alerts on queues are tested": check_alerts,
        "k8s: one card, one lease": lambda: check_gpu(documents["gpu"], binaries),
    }

    failed = 0
    for name, test in tests.items():
        try:
            test()
            print(f"test {name} ... ok", flush=True)
        except Exception as error:  # whatever it is, the others still run
            failed += 1
            print(f"test {name} ... FAILED\n    {type(error).__name__}: {error}", flush=True)
    print(f"test result: {'FAILED' if failed else 'ok'}. {len(tests) - failed} passed; {failed} failed; 0 ignored")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
