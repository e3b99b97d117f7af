// Checks custom resources against schemas that others have made from the projects' own Go types
// (the npm packages @kubernetes-models/*): unlike ours in schemas/, they know every field, but let
// unknown ones pass. Arguments: the folder node_modules, the files crds/NAME.json of k8s.counts.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const PACKAGES = {
  "keda.sh": "keda",
  "cert-manager.io": "cert-manager",
  "monitoring.coreos.com": "prometheus-operator",
};
const [folder, ...files] = process.argv.slice(2);
const counts = {};
for (const one of files.flatMap((file) => JSON.parse(readFileSync(file, "utf8")))) {
  const name = PACKAGES[one.apiVersion.split("/")[0]];
  const path = `${folder}/@kubernetes-models/${name}/${one.apiVersion}/${one.kind}.js`;
  const Model = (await import(pathToFileURL(resolve(path))))[one.kind];
  try {
    new Model(one).validate();
    counts[one.kind] = (counts[one.kind] ?? 0) + 1;
  } catch (error) {
    console.error(`${one.kind} ${one.metadata.name}: ${error.message}`);
    process.exitCode = 1;
  }
}
console.log("custom resources that are valid:", JSON.stringify(counts));
