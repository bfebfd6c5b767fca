// What `rowcast types` writes, compiled by TypeScript together with the client's types: what is right
// compiles, and what is wrong is an error where it stands.
//
//   ROWCAST_BIN  the binary; default target/release/rowcast, else target/debug/rowcast

import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const here = path.dirname(fileURLToPath(import.meta.url));
const binary = process.env.ROWCAST_BIN
  ?? ["release", "debug"].map((profile) => path.join(here, "../../target", profile, "rowcast")).find(existsSync);
const compiler = createRequire(import.meta.url).resolve("typescript/bin/tsc");

/** A topic of rows, one of their pages, one whose names are keywords and no identifiers, and one
 *  of events only. */
const CONFIG = `
[[topics]]
type = "patient"
table = "patient"

[[topics]]
type = "all_patient_page_data"
table = "patient"
push = "page"

[[topics]]
type = "new-select"
table = "select"

[[topics]]
type = "notice"
`;

/** The second table's columns are what TypeScript might take for something else. */
const TABLES = `
CREATE TABLE patient (id INTEGER PRIMARY KEY, name TEXT NOT NULL, ward TEXT, age INTEGER);
CREATE TABLE "select" (new INTEGER PRIMARY KEY, get TEXT NOT NULL, "set" TEXT, "readonly" TEXT, "static" TEXT,
  "constructor" TEXT, "async" TEXT, "__proto__" TEXT, "order by" "*/ odd", "a""b\\c" TEXT, 姓名 TEXT, "1" TEXT, "" TEXT);
`;

/** Valid use; a line that ends in `// error` must not compile, and no other may fail. */
const USE = `
import { connect, type Live } from "./rowcast.js";
import type { AllPatientPageData, NewSelect, Patient, Topics } from "./topics";

const rowcast = connect<Topics>();
const patients = rowcast.live("patient", { filter: { ward: "3" }, order: "name" });
patients.subscribe((rows) => {
  for (const row of rows) {
    const name: string = row.name;
    const ward: string | null = row.ward;
    const upper = name.toUpperCase() + (ward ?? "");
    row.id.toFixed();
    row.age.toFixed(); // error
    row.ward.length; // error
    row.nmae; // error
    const id: string = row.id; // error
    console.log(upper, id);
  }
});
patients.rows[0]?.floor; // error
rowcast.live("patient", { filter: { nmae: "x" } }); // error
await rowcast.query("patient", { filter: { age: { gte: 80 }, nmae: "x" } }); // error
rowcast.live("patientt"); // error
rowcast.on("visitt", () => {}); // error
rowcast.live("patient", { order: ["ward", "age desc"] });
rowcast.live("patient", { order: "nmae" }); // error
rowcast.live("patient", { order: "name down" }); // error
rowcast.on("*", ({ type, data }) => console.log(type, data));
const list: Live<Patient> = patients;
const wrong: Live<NewSelect> = patients; // error

rowcast.on("patient", (frame) => {
  if (frame.op === "insert" || frame.op === "update") {
    frame.data?.name.trim();
    frame.data?.nmae; // error
  } else if (frame.op === "replace") frame.data[0].name.trim();
  else frame.data.name; // error
});
rowcast.on("sys:status", (frame) => frame.status);
rowcast.on("notice", (frame) => {
  if (typeof frame.data === "string") frame.data.trim();
  frame.data.trim(); // error
});

const odd = await rowcast.query("new-select", { id: 1 });
odd.data[0]["order by"];
odd.data[0].get.trim();
odd.data[0]["姓名"]?.trim();
odd.data[0]['a"b\\\\c']?.trim();
odd.data[0].constructor?.trim();
odd.data[0]["no such"]; // error

// A page's rows are the rows.
const page: AllPatientPageData = list.rows[0];

// Without the map of all topics.
const untyped = connect();
untyped.live("patient").rows[0].anything;
untyped.live<Patient>("patient").rows[0].name.trim();
untyped.live<Patient>("patient").rows[0].nmae; // error
untyped.live("patient", { filter: { ward: "3" }, order: "anything desc" }).rows[0].anything;
untyped.live<Patient>("patient", { filter: { wrad: "3" } }); // error
const reply = await untyped.query<Patient>("patient", { all: true });
reply.data.map((row: Patient) => row.name);

console.log(wrong, page);
`;

let folder;

before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "rowcast-types-"));
  await cp(path.join(here, "../../client"), folder, { recursive: true });
  await writeFile(path.join(folder, "rowcast.toml"), CONFIG);
  execFileSync("sqlite3", ["rowcast.db"], { cwd: folder, input: TABLES });
  const module = execFileSync(binary, ["types"], { cwd: folder, encoding: "utf8" });
  await writeFile(path.join(folder, "topics.ts"), module);
  await writeFile(path.join(folder, "use.ts"), USE);
});

after(() => folder && rm(folder, { recursive: true, force: true }));

/** Compiles files strictly, and returns what the compiler complains of: `use.ts(12,5): error …`. */
async function compile(...files) {
  const flags = ["--noEmit", "--strict", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler",
    "--lib", "es2022,dom", "--pretty", "false"];
  const run = promisify(execFile)(process.execPath, [compiler, ...flags, ...files], { cwd: folder });
  const { stdout } = await run.catch((err) => err);
  return stdout.split("\n").filter((line) => /^\S/.test(line));
}

test("what is written is TypeScript, whatever the tables are called", async () => {
  assert.deepEqual(await compile("topics.ts"), []);
});

test("right use compiles, and a wrong column is an error where it stands", async () => {
  const complaints = await compile("use.ts");
  const found = complaints.map((line) => /^use\.ts\((\d+),/.exec(line)?.[1] ?? line);
  const expected = USE.split("\n").flatMap((line, index) => (line.endsWith("// error") ? [`${index + 1}`] : []));
  assert.ok(expected.length > 8);
  assert.deepEqual(found, expected, complaints.join("\n"));
});
