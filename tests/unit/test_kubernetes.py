"""The manifests of deploy/k8s: each is what Kubernetes' own schema allows, and they promise what compose.yaml promises.

No cluster and no Kustomize is here: tests/kustomize.py puts them together, and nothing is applied.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest

from faxbot import destinations, wiring
from faxbot.cli import cli
from faxbot.config import BY_NAME, OPTIONS, Config
from faxbot.notifications.email.session import PORTS
from tests.containers import ROOT, compose, environment, only, stages
from tests.kustomize import Manifest, build, containers, pod

K8S = ROOT / "deploy" / "k8s"
VERSION = "1.34"
COMPONENTS = ("../../components/listen", "../../components/shared-documents")
GIVEN = {
    **dict.fromkeys(("POSTGRES_PASSWORD", "REDIS_PASSWORD", "FLOWER_PASSWORD"), "pass-word"),
    "CONFIG_MASTER_KEY": "A" * 43 + "=",
}


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """The example, with its secrets, in a copy."""
    shutil.copytree(K8S, tmp_path / "k8s", ignore=shutil.ignore_patterns("secrets.env"))
    example = tmp_path / "k8s" / "overlays" / "example"
    shutil.copy(example / "secrets.env.example", example / "secrets.env")
    return example


@pytest.fixture(params=[(), COMPONENTS], ids=["as it is", "with both components"])
def manifests(request: pytest.FixtureRequest, overlay: Path) -> list[Manifest]:
    return build(overlay, request.param)


def of_kind(manifests: list[Manifest], *kinds: str) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] in kinds}


def with_pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    return of_kind(manifests, "Deployment", "Job")


def the_only(manifests: list[Manifest], kind: str) -> Manifest:
    (found,) = of_kind(manifests, kind).values()
    return found


def test_every_manifest_is_what_the_schema_of_its_kind_allows(manifests: list[Manifest]) -> None:
    kinds = set()
    for manifest in manifests:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
        kinds.add(manifest["kind"])

    assert kinds >= {"Deployment", "Job", "Service", "Secret", "ConfigMap"}
    assert kinds >= {"NetworkPolicy", "PodDisruptionBudget"}


def test_the_schema_refuses_what_is_misspelled(manifests: list[Manifest]) -> None:
    web = of_kind(manifests, "Deployment")["faxbot-web"]
    containers(web)[0]["livenessprobe"] = containers(web)[0].pop("livenessProbe")

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(web, VERSION, strict=True)


def test_without_its_secrets_nothing_is_built() -> None:
    assert not (K8S / "overlays" / "example" / "secrets.env").exists()
    with pytest.raises(FileNotFoundError):
        build(K8S / "overlays" / "example")


def test_no_pod_has_more_rights_than_its_work_needs(manifests: list[Manifest]) -> None:
    user = int(only(stages("web.Dockerfile")[-1], "USER").rest.split(":")[0])
    assert user == int(only(stages("worker.Dockerfile")[-1], "USER").rest.split(":")[0])
    for manifest in with_pods(manifests).values():
        spec = pod(manifest)
        assert spec is not None
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert all("hostPath" not in volume for volume in spec["volumes"])
        for container in containers(manifest):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"requests", "limits"} == set(container["resources"])
            assert "memory" in container["resources"]["limits"]


def test_every_folder_that_is_written_is_a_volume(manifests: list[Manifest]) -> None:
    """The root is read-only: /tmp, and /data where documents and uploads are."""
    for name, manifest in with_pods(manifests).items():
        spec = pod(manifest)
        assert spec is not None
        for container in containers(manifest):
            mounted = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
            assert set(mounted.values()) == {each["name"] for each in spec["volumes"]}
            own = {each["name"]: each["value"] for each in container.get("env", ())}
            image = "web.Dockerfile" if name == "faxbot-web" else "worker.Dockerfile"
            folder = own.get("FAX_DATA_DIR", environment(stages(image)[-1])["FAX_DATA_DIR"])
            assert "/tmp" in mounted
            assert any(folder.startswith(path) for path in mounted)


def test_services_are_those_of_compose_with_its_images_and_commands(
    manifests: list[Manifest],
) -> None:
    services = compose(GIVEN)["services"]
    context = click.Context(cli)
    defaults = {"web": "web.Dockerfile", "worker": "worker.Dockerfile"}
    for name, manifest in with_pods(manifests).items():
        role = name.removeprefix("faxbot-")
        (container,) = containers(manifest)
        image = services[role]["image"].split(":")[0]
        assert container["image"] == f"registry.example.org/{image}:put-your-version-here"
        command = services[role].get("command")
        if command is None:
            command = only(stages(defaults[role])[-1], "CMD").command()
        assert container["command"] == command
        found = cli.get_command(context, command[1])
        assert found is not None
        if len(command) > 2:
            assert command[2] in getattr(found, "commands", {})


def test_probes_ask_what_the_images_health_checks_ask(manifests: list[Manifest]) -> None:
    deployments = of_kind(manifests, "Deployment")
    (web,), (worker,) = (containers(deployments[f"faxbot-{each}"]) for each in ("web", "worker"))
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert web[probe]["httpGet"] == {"path": "/health", "port": "http"}
    check = only(stages("worker.Dockerfile")[-1], "HEALTHCHECK").command()
    for probe in ("startupProbe", "livenessProbe"):
        assert worker[probe]["exec"]["command"] == check
        assert worker[probe]["timeoutSeconds"] > 8


def test_pods_have_the_time_to_end_that_compose_gives(manifests: list[Manifest]) -> None:
    services = compose(GIVEN)["services"]
    for role in ("web", "worker"):
        spec = pod(of_kind(manifests, "Deployment")[f"faxbot-{role}"])
        assert spec is not None
        grace = int(services[role]["stop_grace_period"].removesuffix("s"))
        assert spec["terminationGracePeriodSeconds"] >= grace


def test_there_is_one_clock_and_many_may_be_whatever_else_is_scaled(
    manifests: list[Manifest],
) -> None:
    deployments = of_kind(manifests, "Deployment")
    beat = deployments.pop("faxbot-beat")["spec"]
    assert (beat["replicas"], beat["strategy"]) == (1, {"type": "Recreate"})
    for name in ("faxbot-web", "faxbot-worker"):
        spec = deployments[name]["spec"]
        assert spec["replicas"] >= 2
        assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        assert spec["template"]["spec"]["topologySpreadConstraints"]
        assert name in of_kind(manifests, "PodDisruptionBudget")


def test_selectors_find_their_own_pods_and_no_others(manifests: list[Manifest]) -> None:
    labels = {
        name: each["spec"]["template"]["metadata"]["labels"]
        for name, each in with_pods(manifests).items()
    }

    def found(selector: dict[str, str]) -> list[str]:
        return [name for name, each in labels.items() if selector.items() <= each.items()]

    for name, each in of_kind(manifests, "Deployment", "PodDisruptionBudget").items():
        assert found(each["spec"]["selector"]["matchLabels"]) == [name]
    assert found(of_kind(manifests, "Service")["faxbot-web"]["spec"]["selector"]) == ["faxbot-web"]
    policies = of_kind(manifests, "NetworkPolicy")
    assert found(policies["faxbot-web"]["spec"]["podSelector"]["matchLabels"]) == ["faxbot-web"]
    everything = policies["faxbot"]["spec"]
    assert found(everything["podSelector"]["matchLabels"]) == list(labels)
    assert (everything["policyTypes"], everything.get("ingress")) == (["Ingress", "Egress"], None)


def test_pods_may_go_out_to_the_ports_of_the_defaults_and_to_no_others(
    manifests: list[Manifest],
) -> None:
    rules = of_kind(manifests, "NetworkPolicy")["faxbot"]["spec"]["egress"]
    assert all(set(rule) == {"ports"} for rule in rules)
    opened = {(each["protocol"], each["port"]) for rule in rules for each in rule["ports"]}
    default = BY_NAME["FAXBOT_WEBHOOK_PORTS"].default
    webhooks = {port for some in destinations.ports(str(default)) for port in some}

    assert {port for protocol, port in opened if protocol == "UDP"} == {53}
    assert {port for protocol, port in opened if protocol == "TCP"} == (
        {53, 443, 5432, 6379} | webhooks | set(PORTS.values())
    )


@pytest.mark.parametrize(
    ("file", "kind", "field"),
    [
        ("kustomization.yaml", "ConfigMap", "configMapRef"),
        ("secrets.env", "Secret", "secretRef"),
    ],
)
def test_what_is_set_otherwise_has_another_name_wherever_it_is_referred_to(
    overlay: Path, file: str, kind: str, field: str
) -> None:
    """So pods start anew; and so the Job is another one, which Kubernetes refuses while the one of before is there."""
    before = build(overlay, COMPONENTS)
    assert build(overlay, COMPONENTS) == before
    path = overlay / file
    path.write_text(
        path.read_text().replace("your-bucket", "other-bucket").replace("host", "other-host")
    )
    after = build(overlay, COMPONENTS)

    names = [the_only(each, kind)["metadata"]["name"] for each in (before, after)]
    assert names[0] != names[1]
    for name, manifests in zip(names, (before, after), strict=True):
        assert re.fullmatch("faxbot-[bcdfghkmt2456789]{10}", name)
        for manifest in with_pods(manifests).values():
            for container in containers(manifest):
                assert [each[field]["name"] for each in container["envFrom"] if field in each] == [
                    name
                ]
    jobs = [of_kind(each, "Job")["faxbot-migrate"] for each in (before, after)]
    assert jobs[0]["spec"]["template"] != jobs[1]["spec"]["template"]
    assert jobs[0]["spec"]["ttlSecondsAfterFinished"] <= 3600


def _secret(name: str) -> bool:
    options = {option.name: option for option in OPTIONS}
    if name in options:
        return options[name].secret or name in ("DATABASE_URL", "CELERY_BROKER_URL")
    rules = _plugin_variables()
    return bool(rules[name])


def _plugin_variables() -> dict[str, bool]:
    """The variables that installed plugins read: whether each is a secret."""
    found: dict[str, bool] = {}
    for manifest in wiring.plugins(Config.load({"FAX_DATA_DIR": "/nowhere"})).manifests():
        for key, variables in manifest.variables.items():
            found |= dict.fromkeys(variables, key in manifest.secrets)
    return found


def test_every_variable_is_a_setting_and_secrets_are_in_the_secret_alone(
    manifests: list[Manifest],
) -> None:
    config: dict[str, str] = the_only(manifests, "ConfigMap")["data"]
    secrets: dict[str, str] = the_only(manifests, "Secret")["stringData"]
    known = {option.name for option in OPTIONS} | set(_plugin_variables())

    assert {*config, *secrets} <= known
    assert [name for name in config if _secret(name)] == []
    assert all(re.fullmatch(r"<.+>", value) for value in secrets.values()), "placeholders only"
    for manifest in with_pods(manifests).values():
        for container in containers(manifest):
            sources: list[dict[str, Any]] = container["envFrom"]
            assert sources == [
                {"configMapRef": {"name": the_only(manifests, "ConfigMap")["metadata"]["name"]}},
                {"secretRef": {"name": the_only(manifests, "Secret")["metadata"]["name"]}},
            ]
            own = {each["name"]: each["value"] for each in container.get("env", ())}
            assert set(own) <= known
            assert not [name for name in own if _secret(name)]


def test_documents_are_where_every_pod_finds_them(
    request: pytest.FixtureRequest, manifests: list[Manifest]
) -> None:
    shared = "both" in request.node.callspec.id
    assert the_only(manifests, "ConfigMap")["data"]["STORAGE_BACKEND"] == "s3"
    for name in ("faxbot-web", "faxbot-worker"):
        spec = pod(of_kind(manifests, "Deployment")[name])
        assert spec is not None
        (data,) = [each for each in spec["volumes"] if each["name"] == "data"]
        assert set(data) == {"name", "persistentVolumeClaim" if shared else "emptyDir"}
