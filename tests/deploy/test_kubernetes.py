"""The files that Kubernetes gets, against its own schemas and against what the gateway needs."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from steelyard import __version__
from steelyard.config.pool_settings import EmbeddedPoolSettings
from steelyard.config.settings import load_settings
from steelyard.pools.engine.comparison import COMPARISON_LIMIT_S
from steelyard.pools.engine.supervisor import SupervisorLimits

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FOLDER = REPOSITORY / "deploy" / "kubernetes"
# The oldest version of Kubernetes that has all fields used, and the newest one with schemas here.
VERSIONS = ("1.31", "1.37")
Json = dict[str, Any]


def _read(name: str) -> Json:
    read: Json = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    return read


BASE = _read("kustomization.yaml")
RESOURCES: list[str] = BASE["resources"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", RESOURCES)
def test_every_resource_keeps_to_the_schema_of_kubernetes(name: str, version: str) -> None:
    kubernetes_validate.validate(_read(name), version, strict=True)


def test_the_schema_refuses_a_slip_of_the_pen() -> None:
    deployment = _read("deployment.yaml")
    deployment["spec"]["template"]["spec"]["containers"][0]["readyProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


def test_the_base_names_every_file_of_its_folder() -> None:
    generated = [file for one in BASE["configMapGenerator"] for file in one["files"]]
    named = {"kustomization.yaml", *RESOURCES, *generated}
    assert {path.name for path in FOLDER.iterdir()} == named


def test_the_configuration_is_one_that_the_gateway_takes() -> None:
    settings = load_settings(FOLDER / "steelyard.toml")
    assert settings.gateway.require_key
    assert settings.store.url.startswith("postgresql://")


def _pod() -> Json:
    pod: Json = _read("deployment.yaml")["spec"]["template"]["spec"]
    return pod


def test_the_gateway_gets_the_time_that_it_takes_to_leave() -> None:
    gateway = load_settings(FOLDER / "steelyard.toml").gateway
    pod = _pod()
    probe = pod["containers"][0]["readinessProbe"]
    noticed_s = probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]
    assert gateway.unready_s > noticed_s
    assert gateway.unready_s + gateway.drain_s < pod["terminationGracePeriodSeconds"]


def test_a_gateway_is_not_killed_while_its_engine_is_calibrated_and_loads() -> None:
    probe = _pod()["containers"][0]["startupProbe"]
    starts_s = COMPARISON_LIMIT_S + SupervisorLimits().load_timeout_s
    assert probe["periodSeconds"] * probe["failureThreshold"] > starts_s


def test_a_pod_whose_engines_are_full_is_more_than_the_autoscaler_wants() -> None:
    pools = load_settings(FOLDER / "steelyard.toml").pools
    engines = sum(one.replicas for one in pools.values() if isinstance(one, EmbeddedPoolSettings))
    cores = float(_pod()["containers"][0]["resources"]["requests"]["cpu"])
    metrics = _read("horizontalpodautoscaler.yaml")["spec"]["metrics"]
    wanted_percent = metrics[0]["resource"]["target"]["averageUtilization"]
    # Before the gateway's own share of the processor.
    assert wanted_percent < 100 * engines / cores


def test_an_apply_does_not_take_back_what_the_autoscaler_set() -> None:
    assert "replicas" not in _read("deployment.yaml")["spec"]
    spec = _read("horizontalpodautoscaler.yaml")["spec"]
    assert 2 <= spec["minReplicas"] < spec["maxReplicas"]


def test_a_gateway_goes_only_after_its_successor_came() -> None:
    rolling = _read("deployment.yaml")["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 1, "maxUnavailable": 0}


def test_the_image_has_the_version_of_the_package() -> None:
    assert [one["newTag"] for one in BASE["images"]] == [__version__]


def test_names_agree_between_the_files() -> None:
    container = _pod()["containers"][0]
    settings = load_settings(FOLDER / "steelyard.toml")
    labels = _read("deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    assert _read("deployment.yaml")["spec"]["selector"]["matchLabels"] == labels
    assert _read("service.yaml")["spec"]["selector"] == labels
    for name in ("poddisruptionbudget.yaml", "networkpolicy.yaml"):
        spec = _read(name)["spec"]
        assert (spec.get("selector") or spec["podSelector"])["matchLabels"] == labels
    assert container["ports"] == [{"name": "http", "containerPort": settings.gateway.port}]
    assert [one["name"] for one in container["env"]] == [settings.store.password_env]
    assert _read("serviceaccount.yaml")["metadata"]["name"] == _pod()["serviceAccountName"]
    assert _read("horizontalpodautoscaler.yaml")["spec"]["scaleTargetRef"]["name"] == "steelyard"
    volumes = {one["name"]: one for one in _pod()["volumes"]}
    assert {one["name"] for one in container["volumeMounts"]} == set(volumes)
    maps = [one["name"] for one in BASE["configMapGenerator"]]
    assert volumes["config"]["configMap"]["name"] in maps
    assert container["image"] in [one["name"] for one in BASE["images"]]


def test_the_pod_has_no_rights_that_the_restricted_profile_forbids() -> None:
    assert _pod()["securityContext"]["runAsNonRoot"] is True
    container = _pod()["containers"][0]["securityContext"]
    assert container["readOnlyRootFilesystem"] is True
    assert container["allowPrivilegeEscalation"] is False
    assert container["capabilities"] == {"drop": ["ALL"]}


def _rendered(folder: Path) -> dict[str, Json]:
    """What kustomize makes of a folder, by kind."""
    kubectl, kustomize = shutil.which("kubectl"), shutil.which("kustomize")
    if kubectl is None and kustomize is None:
        pytest.skip("neither kubectl nor kustomize is installed")
    command = [str(kustomize), "build"] if kubectl is None else [kubectl, "kustomize"]
    done = subprocess.run(  # noqa: S603
        [*command, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {one["kind"]: one for one in yaml.safe_load_all(done.stdout)}


def _keep_to_the_schema(rendered: dict[str, Json]) -> None:
    for one in rendered.values():
        for version in VERSIONS:
            kubernetes_validate.validate(one, version, strict=True)


def test_kustomize_makes_the_base_complete() -> None:
    rendered = _rendered(FOLDER)
    _keep_to_the_schema(rendered)
    assert set(rendered) == {"ConfigMap", *(_read(name)["kind"] for name in RESOURCES)}
    pod = rendered["Deployment"]["spec"]["template"]["spec"]
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert volumes["config"]["configMap"]["name"] == rendered["ConfigMap"]["metadata"]["name"]
    assert pod["containers"][0]["image"] == f"steelyard:{__version__}"
    places = {one["metadata"].get("namespace") for one in rendered.values()}
    assert places == {None, rendered["Namespace"]["metadata"]["name"]}


def test_the_overlay_of_the_documentation_is_one_that_kustomize_takes(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "deploying.md").read_text(encoding="utf-8")
    found = re.search(r"```yaml\n(# overlay/.*?)```", text, re.DOTALL)
    assert found is not None
    overlay = yaml.safe_load(found[1])
    shutil.copytree(FOLDER, tmp_path / "base")
    overlay["resources"] = ["../base"]
    (tmp_path / "overlay").mkdir()
    (tmp_path / "overlay" / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    toml = (FOLDER / "steelyard.toml").read_text(encoding="utf-8").replace("@postgres:", "@db:")
    (tmp_path / "overlay" / "steelyard.toml").write_text(toml, encoding="utf-8")
    rendered = _rendered(tmp_path / "overlay")
    _keep_to_the_schema(rendered)
    assert rendered["ConfigMap"]["data"] == {"steelyard.toml": toml}
    pod = rendered["Deployment"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"].startswith(overlay["images"][0]["newName"])
    ports = {
        port["port"]
        for rule in rendered["NetworkPolicy"]["spec"]["egress"]
        for port in rule["ports"]
    }
    assert ports == {53, 5432, 443, 8000}
