// Turns the figures that run.sh recorded into medians over the rounds and a table of ratios.
//
//   node table.mjs FIGURES.jsonl [OUTPUT.json]

import { readFileSync, writeFileSync } from "node:fs";

const [input, output] = process.argv.slice(2);
const lines = readFileSync(input, "utf8").trim().split("\n").map((line) => JSON.parse(line));

/** All values of each measure, by contender: `values["submit 16"].nereid = [5100, …]`. */
const values = {};
const add = (measure, who, value) => ((values[measure] ??= {})[who] ??= []).push(value);

for (const { who, what, figures } of lines) {
  if (who !== "nereid") {
    const [kind, number] = what.split(" ");
    if (kind === "submit") add(`submit ${number}`, who, figures.per_second);
    if (kind === "drain") add("drain", who, figures.per_second);
    if (kind === "latency") {
      add("start p50", who, figures.p50_ms);
      add("start p99", who, figures.p99_ms);
    }
    continue;
  }
  for (const [clients, rate] of Object.entries(figures.raw_insert ?? {})) add(`submit ${clients}`, "raw insert", rate);
  for (const [clients, rate] of Object.entries(figures.submit_http)) add(`submit ${clients}`, "nereid (HTTP)", rate);
  for (const [clients, rate] of Object.entries(figures.submit_store)) add(`submit ${clients}`, "nereid (store)", rate);
  add("drain", "nereid (store)", figures.drain.per_second);
  for (const [how, latency] of [["HTTP", figures.start_http], ["store", figures.start_store]]) {
    add("start p50", `nereid (${how})`, latency.p50_ms);
    add("start p99", `nereid (${how})`, latency.p99_ms);
  }
}

const median = (numbers) => {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};
const medians = Object.fromEntries(
  Object.entries(values).map(([measure, by]) => [
    measure,
    Object.fromEntries(Object.entries(by).map(([who, all]) => [who, median(all)])),
  ]),
);

const title = (measure) => {
  const [kind, clients] = measure.split(" ");
  if (kind === "submit") return `submissions/s, ${clients} client${clients === "1" ? "" : "s"}`;
  return kind === "drain" ? "drained jobs/s, one worker process" : `call to start, ${clients}, ms`;
};
const contenders = ["raw insert", "nereid (HTTP)", "nereid (store)", "graphile-worker", "pg-boss"];
const digits = (measure) => (measure.startsWith("start") ? 2 : 0);
const cell = (measure, who) => medians[measure][who]?.toFixed(digits(measure)) ?? "";
const peers = ["graphile-worker", "pg-boss"];
/** How far Nereid is ahead of the better peer; above 1 it is ahead. */
const ahead = (measure) => {
  const ours = medians[measure]["nereid (HTTP)"] ?? medians[measure]["nereid (store)"];
  const theirs = peers.map((who) => medians[measure][who]);
  const best = measure.startsWith("start") ? Math.min(...theirs) / ours : ours / Math.max(...theirs);
  return best.toFixed(2);
};

console.log(`medians of ${Math.max(...lines.map((line) => line.round))} rounds\n`);
console.log(`| measure | ${contenders.join(" | ")} | Nereid : best peer |`);
console.log(`| --- |${" ---: |".repeat(contenders.length + 1)}`);
for (const measure of Object.keys(medians)) {
  console.log(`| ${title(measure)} | ${contenders.map((who) => cell(measure, who)).join(" | ")} | ${ahead(measure)} |`);
}
if (output) writeFileSync(output, `${JSON.stringify({ medians, rounds: lines }, null, 1)}\n`);
