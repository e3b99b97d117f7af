"""Objects of a deployment, and where the API server keeps them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dnd.errors import BadSetting

# Kind: API, plural, whether it is in a namespace; in the order in which objects are made.
KINDS: Mapping[str, tuple[str, str, bool]] = {
    "Namespace": ("api/v1", "namespaces", False),
    "PriorityClass": ("apis/scheduling.k8s.io/v1", "priorityclasses", False),
    "ServiceAccount": ("api/v1", "serviceaccounts", True),
    "Role": ("apis/rbac.authorization.k8s.io/v1", "roles", True),
    "ClusterRole": ("apis/rbac.authorization.k8s.io/v1", "clusterroles", False),
    "ConfigMap": ("api/v1", "configmaps", True),
    "PersistentVolumeClaim": ("api/v1", "persistentvolumeclaims", True),
    "Issuer": ("apis/cert-manager.io/v1", "issuers", True),
    "Certificate": ("apis/cert-manager.io/v1", "certificates", True),
    "NetworkPolicy": ("apis/networking.k8s.io/v1", "networkpolicies", True),
    "Service": ("api/v1", "services", True),
    "StatefulSet": ("apis/apps/v1", "statefulsets", True),
    "Job": ("apis/batch/v1", "jobs", True),
    "Deployment": ("apis/apps/v1", "deployments", True),
    "PodDisruptionBudget": ("apis/policy/v1", "poddisruptionbudgets", True),
    "ScaledObject": ("apis/keda.sh/v1alpha1", "scaledobjects", True),
    "HorizontalPodAutoscaler": ("apis/autoscaling/v2", "horizontalpodautoscalers", True),
    "PodMonitor": ("apis/monitoring.coreos.com/v1", "podmonitors", True),
    "PrometheusRule": ("apis/monitoring.coreos.com/v1", "prometheusrules", True),
}

INSTALLED_BY: Mapping[str, str] = {
    "apis/cert-manager.io/v1": "cert-manager",
    "apis/keda.sh/v1alpha1": "KEDA",
    "apis/monitoring.coreos.com/v1": "the Prometheus operator",
}
"""What brings APIs to a cluster that Kubernetes itself does not have."""


def path_of(manifest: Mapping[str, Any], namespace: str) -> str:
    """Where the API server keeps an object.

    Raises:
        BadSetting: Its kind is none of those in deploy/k8s.
    """
    kind = str(manifest.get("kind"))
    if kind not in KINDS:
        raise BadSetting(f"kind = {kind!r}: expected one of {', '.join(KINDS)}.")
    api, plural, namespaced = KINDS[kind]
    name = manifest["metadata"]["name"]
    inside = f"namespaces/{manifest['metadata'].get('namespace', namespace)}/" if namespaced else ""
    return f"/{api}/{inside}{plural}/{name}"


def read_manifests(source: Path) -> list[dict[str, Any]]:
    """The objects of a YAML file, or of an overlay's folder, in the order in which to make them.

    Raises:
        BadSetting: It cannot be read, or there is no kustomize to build the folder.
    """
    try:
        text = _build(source) if source.is_dir() else source.read_text(encoding="utf-8")
        objects = [one for one in yaml.safe_load_all(text) if one]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadSetting(f"{source} cannot be read: {error}") from None
    for one in objects:
        if not isinstance(one, dict) or one.get("kind") not in KINDS:
            kind = one.get("kind") if isinstance(one, dict) else type(one).__name__
            raise BadSetting(f"{source}: kind = {kind!r}: expected one of {', '.join(KINDS)}.")
    order = list(KINDS)
    return sorted(objects, key=lambda one: order.index(one["kind"]))


def _build(folder: Path) -> str:
    command: Sequence[str]
    if shutil.which("kustomize"):
        command = ("kustomize", "build", str(folder))
    elif shutil.which("kubectl"):
        command = ("kubectl", "kustomize", str(folder))
    else:
        raise BadSetting(
            f"{folder} is built by kustomize or kubectl, and neither is installed: install one, or "
            "name a YAML file."
        )
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise BadSetting(f"{folder} cannot be built: {made.stderr.strip()[-500:]}")
    return made.stdout
