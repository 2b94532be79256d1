"""Puts the manifests of deploy/k8s together as `kubectl apply -k` would, as far as ours use Kustomize: resources,
components, merging patches, images, replicas, a namespace, and generators, whose names get a hash of what they hold.
What it does not know it refuses."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]
KNOWN = {
    "apiVersion",
    "kind",
    "namespace",
    "resources",
    "components",
    "patches",
    "images",
    "replicas",
    "configMapGenerator",
    "secretGenerator",
}


def build(folder: Path, more: tuple[str, ...] = ()) -> list[Manifest]:
    """All manifests of a Kustomization; `more` components. Raises FileNotFoundError for a file of a generator that is
    not there."""
    wish = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(wish) <= KNOWN, set(wish) - KNOWN
    found: list[Manifest] = []
    for name in wish.get("resources", ()):
        place = folder / name
        found += build(place) if place.is_dir() else _documents(place)
    generated = [*_generated(folder, wish)]
    found += generated
    for name in (*wish.get("components", ()), *more):
        _add(found, folder / name)
    _change(found, folder, wish)
    for each in generated:
        _name_by_content(each, found)
    return found


def _add(found: list[Manifest], component: Path) -> None:
    wish = yaml.safe_load((component / "kustomization.yaml").read_text())
    assert wish["kind"] == "Component"
    assert set(wish) <= KNOWN, set(wish) - KNOWN
    for name in wish.get("resources", ()):
        found += _documents(component / name)
    _change(found, component, wish)


def _documents(path: Path) -> list[Manifest]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def _generated(folder: Path, wish: Manifest) -> Iterator[Manifest]:
    for kind, field in (("ConfigMap", "data"), ("Secret", "stringData")):
        for each in wish.get(f"{kind[0].lower()}{kind[1:]}Generator", ()):
            lines = [*each.get("literals", ())]
            for name in each.get("envs", ()):
                lines += filter(None, (folder / name).read_text().splitlines())
            data = dict(line.split("=", 1) for line in lines)
            yield {
                "apiVersion": "v1",
                "kind": kind,
                "metadata": {"name": each["name"]},
                field: data,
            }


_REFERENCES = {
    "ConfigMap": (("configMapRef", "name"), ("configMapKeyRef", "name"), ("configMap", "name")),
    "Secret": (("secretRef", "name"), ("secretKeyRef", "name"), ("secret", "secretName")),
}
"""By which fields of a pod something of this kind is referred to: variables, one variable, a volume."""
_NO_LETTERS = str.maketrans("013ae", "ghkmt")


def _name_by_content(one: Manifest, found: list[Manifest]) -> None:
    """Append a hash to a generated name, in ten letters as Kustomize's (its value is another), and rename it wherever
    pods refer to it."""
    name = one["metadata"]["name"]
    digest = hashlib.sha256(json.dumps(one, sort_keys=True).encode()).hexdigest()
    one["metadata"]["name"] = f"{name}-{digest[:10].translate(_NO_LETTERS)}"
    for manifest in found:
        for field, key in _REFERENCES[one["kind"]]:
            for reference in _under(pod(manifest), field):
                if reference[key] == name:
                    reference[key] = one["metadata"]["name"]


def _under(node: Any, field: str) -> Iterator[Manifest]:
    """All that stands under this name, however deep."""
    if isinstance(node, list):
        for each in node:
            yield from _under(each, field)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == field:
                yield value
            else:
                yield from _under(value, field)


def _change(found: list[Manifest], folder: Path, wish: Manifest) -> None:
    for patch in wish.get("patches", ()):
        (change,) = _documents(folder / patch["path"])
        target = patch["target"]
        chosen = [
            each
            for each in found
            if each["kind"] == target["kind"]
            and re.fullmatch(target["name"], each["metadata"]["name"])
        ]
        assert chosen, f"nothing is called {target['name']}"
        for each in chosen:
            each["spec"] = merged(each["spec"], change["spec"])
    for count in wish.get("replicas", ()):
        (one,) = [
            each
            for each in found
            if each["kind"] == "Deployment" and each["metadata"]["name"] == count["name"]
        ]
        one["spec"]["replicas"] = count["count"]
    images = {
        each["name"]: f"{each['newName']}:{each['newTag']}" for each in wish.get("images", ())
    }
    for each in found:
        for container in containers(each):
            container["image"] = images.get(container["image"], container["image"])
        if "namespace" in wish and each["kind"] != "Namespace":
            each["metadata"]["namespace"] = wish["namespace"]


def merged(node: Any, change: Any) -> Any:
    """A strategic merge: None takes away, lists of things with a name are merged by it."""
    if isinstance(node, dict) and isinstance(change, dict):
        result = copy.deepcopy(node)
        for key, value in change.items():
            if value is None:
                result.pop(key, None)
            else:
                result[key] = merged(node.get(key), value)
        return result
    if isinstance(node, list) and isinstance(change, list):
        by_name = {each["name"]: each for each in node}
        for each in change:
            by_name[each["name"]] = merged(by_name.get(each["name"]), each)
        return list(by_name.values())
    return copy.deepcopy(change)


def pod(manifest: Manifest) -> Manifest | None:
    """The spec of its pods, where it has any."""
    spec = manifest.get("spec", {}).get("template", {}).get("spec")
    return spec if isinstance(spec, dict) else None


def containers(manifest: Manifest) -> list[Manifest]:
    found = pod(manifest)
    return [] if found is None else [*found.get("initContainers", ()), *found["containers"]]
