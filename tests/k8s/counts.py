"""Writes what kustomize makes of each overlay to a folder, and prints how much of what was checked.

    PYTHONPATH=tests python -m k8s.counts build/k8s     # make k8s-check calls it

NAME.yaml is for checkov, crds/NAME.json has the custom resources for custom_resources.mjs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml
from k8s.manifests import OVERLAYS, environment, of_kind, overlay, workloads
from k8s.test_network import edges_of_policies
from k8s.test_objects import schema_of


def main(folder: Path) -> None:
    (folder / "crds").mkdir(parents=True, exist_ok=True)
    print("overlay    objects  custom  pods  probes  edges  policies  variables  service ports")
    for name in OVERLAYS:
        objects = overlay(name)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(map(dict, objects)))
        custom = [one for one in objects if schema_of(one)]
        (folder / "crds" / f"{name}.json").write_text(json.dumps(custom))
        pods = workloads(objects)
        num_probes = sum(key.endswith("Probe") for pod in pods for key in pod.main)
        num_variables = sum(len(environment(objects, pod)) for pod in pods)
        num_ports = sum(len(one["spec"]["ports"]) for one in of_kind(objects, "Service"))
        print(
            f"{name:<10} {len(objects):>7} {len(custom):>7} {len(pods):>5} {num_probes:>7}"
            f" {len(edges_of_policies(objects, 'Ingress')):>6}"
            f" {len(of_kind(objects, 'NetworkPolicy')):>9} {num_variables:>10} {num_ports:>14}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
