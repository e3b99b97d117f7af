"""The API server of a cluster, spoken to in plain objects through the `kubernetes` client."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from dnd.cluster.manifests import path_of
from dnd.errors import (
    AlreadyExists,
    BadSetting,
    DndError,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    Unavailable,
)

FIELD_MANAGER = "dnd"
_ANSWER_S = 30.0
_NO_PACKAGE = (
    "`dnd cluster` speaks to Kubernetes with a package that is not installed: "
    "pip install 'describe-and-dissect[cluster]'."
)

Object = Mapping[str, Any]


class ClusterApi:
    """One namespace of a cluster. Not for several threads.

    Args:
        client: A `kubernetes.client.ApiClient`.
        namespace: Where the deployment is.
    """

    def __init__(self, client: Any, namespace: str = "dnd") -> None:
        self._client = client
        self.namespace = namespace

    @classmethod
    def connect(cls, namespace: str, context: str = "") -> ClusterApi:
        """By the configuration of kubectl: KUBECONFIG, or ~/.kube/config.

        Raises:
            BadSetting: The package `kubernetes` is missing, or there is no such configuration.
        """
        try:
            config = importlib.import_module("kubernetes.config")
        except ModuleNotFoundError:
            raise BadSetting(_NO_PACKAGE) from None
        try:
            return cls(config.new_client_from_config(context=context or None), namespace)
        except (config.ConfigException, OSError) as error:
            raise BadSetting(
                f"No cluster to speak to: {error} (KUBECONFIG, ~/.kube/config, --context)."
            ) from None

    @property
    def root(self) -> str:
        """Path of the namespace's own objects."""
        return f"/api/v1/namespaces/{self.namespace}"

    @property
    def apps(self) -> str:
        """Path of the namespace's Deployments."""
        return f"/apis/apps/v1/namespaces/{self.namespace}"

    @property
    def jobs(self) -> str:
        """Path of the namespace's Jobs."""
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs"

    @property
    def keda(self) -> str:
        """Path of the namespace's ScaledObjects."""
        return f"/apis/keda.sh/v1alpha1/namespaces/{self.namespace}/scaledobjects"

    @property
    def autoscalers(self) -> str:
        """Path of the namespace's HorizontalPodAutoscalers."""
        return f"/apis/autoscaling/v2/namespaces/{self.namespace}/horizontalpodautoscalers"

    def knows(self, path: str) -> bool:
        """Whether there is something at a path: an API, "/apis/keda.sh/v1alpha1", or an object."""
        try:
            self.get(path)
        except NotFound:
            return False
        return True

    def get(self, path: str) -> Any:
        """An object.

        Raises:
            NotFound: There is none.
        """
        return json.loads(self._ask("GET", path))

    def list(self, path: str) -> list[Object]:
        """All objects of a kind; none where the cluster does not know the kind."""
        try:
            found: list[Object] = self.get(path)["items"]
        except NotFound:
            return []
        return found

    def text(self, path: str, **query: str) -> str:
        """A page of text: a log, or what a process serves."""
        return self._ask("GET", path, query).decode(errors="replace")

    def merge(self, path: str, change: Object) -> None:
        """Changes fields of an object; null removes one."""
        self._ask("PATCH", path, {}, change, "application/merge-patch+json")

    def apply(self, manifest: Object, *, force: bool = False) -> None:
        """Brings an object to what the manifest says, server-side.

        Raises:
            FailedPrecondition: Somebody else manages a field with another value, or the object
                cannot be changed.
        """
        query = {"fieldManager": FIELD_MANAGER, "force": str(force).lower()}
        where = path_of(manifest, self.namespace)
        self._ask("PATCH", where, query, json.dumps(manifest), "application/apply-patch+yaml")

    def delete(self, path: str) -> None:
        """Removes an object and what it owns."""
        self._ask("DELETE", path, {"propagationPolicy": "Foreground"})

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | str | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        request = self._client.param_serialize(
            method=method,
            resource_path=path,
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json, */*", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        errors = importlib.import_module("urllib3.exceptions")
        try:
            answer = self._client.call_api(*request, _request_timeout=_ANSWER_S)
            data: bytes = answer.read()
        except errors.HTTPError as error:
            raise Unavailable(f"The cluster does not answer: {error}") from None
        if not 200 <= answer.status < 300:
            raise _error_of(answer.status, data, f"{method} {path}")
        return data


def _error_of(status: int, data: bytes, what: str) -> DndError:
    """The error behind an answer that is none."""
    try:
        found = json.loads(data)
        message = str(found.get("message") or found)
        causes: Sequence[Any] = (found.get("details") or {}).get("causes") or ()
    except ValueError:
        message, causes = data.decode(errors="replace")[:300], ()
    text = f"{what}: {message}"
    if status == 404:
        return NotFound(text)
    if status in (401, 403):
        return BadSetting(
            f"{text} (deploy/k8s/components/operator-rbac has the rights that are needed)."
        )
    if status == 409 and any(cause.get("reason") == "FieldManagerConflict" for cause in causes):
        return FailedPrecondition(
            f"{text}. Take the fields over with --force, or leave them out of the manifest."
        )
    if status == 409:
        return AlreadyExists(text)
    if status == 422:
        return FailedPrecondition(text)
    return InvalidInput(text) if status < 500 else Unavailable(text)
