// The pipeline at a glance: source → relay → bus → gateways → sockets, as the server tells it once
// a second while somebody looks, and what happened to it.

import { byId, element, moment, worded } from "./element.js";
import { known, say, text } from "./i18n.js";
import { request } from "./token.js";

/** Pause between two looks, and the longest wait for an answer, in ms. */
const POLL_MS = 1000;
const ANSWER_MS = 5000;

/** Points of a rate's curve: a minute. */
const CURVE_POINTS = 60;

/** Columns of the incidents. */
const INCIDENT_COLUMNS = ["at", "kind", "what", "process", "n", "text"];

/** What each card counts, and how: `[word of its rate, member]`. */
const TOTALS = { source: "total", relay: "total", gateway: "total", sockets: "pushed" };

const SVG = "http://www.w3.org/2000/svg";

const number = (n) => n.toLocaleString("en");

function shownLag(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : ms < 60_000 ? `${(ms / 1000).toFixed(1)} s` : `${number(Math.round(ms / 60_000))} min`;
}

function shownBytes(bytes) {
  return bytes < 1024 ? `${bytes} B` : bytes < 1024 ** 2 ? `${(bytes / 1024).toFixed(1)} KiB` : bytes < 1024 ** 3 ? `${(bytes / 1024 ** 2).toFixed(1)} MiB` : `${(bytes / 1024 ** 3).toFixed(1)} GiB`;
}

/** Totals of two polls make a rate; those of a minute a curve. */
class Rates {
  #last = new Map();
  #curves = new Map();

  /** The rate a second since the last poll; null where there is none to tell. */
  take(name, total, at) {
    const last = this.#last.get(name);
    if (last?.at === at) return last.rate; // The same answer again.
    const rate = last && total >= last.total && at > last.at ? (total - last.total) * 1000 / (at - last.at) : null;
    this.#last.set(name, { total, at, rate });
    if (rate !== null) {
      const curve = this.#curves.get(name) ?? [];
      curve.push(rate);
      if (curve.length > CURVE_POINTS) curve.shift();
      this.#curves.set(name, curve);
    }
    return rate;
  }

  curve(name) {
    return this.#curves.get(name) ?? [];
  }

  /** Forgets processes that are not there any more. */
  keep(names) {
    for (const map of [this.#last, this.#curves]) for (const name of map.keys()) if (!names.has(name)) map.delete(name);
  }
}

export class Pipeline {
  /** Whether the bus is in the process; null while that is not known. */
  embedded = null;
  #visible = false;
  #timer = 0;
  #rates = new Rates();
  #lastIncident = -1;
  #answeredAt = null;

  constructor() {
    this.#draw({ stages: [] });
    this.#poll();
  }

  visible(shown) {
    this.#visible = shown;
    if (shown) this.#poll();
  }

  async #poll() {
    clearTimeout(this.#timer);
    try {
      const response = await request("/api/pipeline", { signal: AbortSignal.timeout(ANSWER_MS) });
      const hidden = response.status === 404 || response.status === 403;
      byId("incidents-title").closest(".incidents").hidden = hidden; // That nothing has happened is not known.
      if (hidden) {
        // It is for operators, or on a listener of their own: to ask again every second is no use.
        byId("stages").dataset.stale = "true";
        say(byId("pipeline-state"), response.status === 404 ? "pipeline.elsewhere" : "pipeline.operators");
        return;
      }
      if (!response.ok) throw new Error(String(response.status));
      const told = await response.json();
      this.#answeredAt = Date.now();
      const bus = told.stages.find(({ stage }) => stage === "bus");
      if (bus) this.embedded = bus.what?.startsWith("embedded") ?? false;
      this.#draw(told);
      byId("stages").dataset.stale = "false";
      say(byId("pipeline-state"), "pipeline.from", { gateway: told.gateway ?? "", time: moment(told.at ?? Date.now()) });
    } catch {
      byId("stages").dataset.stale = "true";
      say(byId("pipeline-state"), this.#answeredAt ? "pipeline.silent_since" : "pipeline.silent", { time: this.#answeredAt ? moment(this.#answeredAt) : "" });
    }
    clearTimeout(this.#timer);
    if (this.#visible) this.#timer = setTimeout(() => this.#poll(), POLL_MS);
  }

  // The sockets are what the gateways say of them.
  #draw({ stages, incidents = [], at = Date.now() }) {
    const of = (name) => stages.filter(({ stage }) => stage === name);
    const sockets = of("gateway").filter(({ sockets }) => sockets !== undefined).map((gateway) => ({
      stage: "sockets", process: gateway.process, state: gateway.state, sockets: gateway.sockets, behind: gateway.behind, pushed: gateway.pushed, error: null,
    }));
    const cards = [["source", of("source")], ["relay", of("relay")], ["bus", of("bus")], ["gateway", of("gateway")], ["sockets", sockets]];
    this.#rates.keep(new Set(cards.flatMap(([name, parts]) => parts.map(({ process }) => `${name} ${process}`))));
    const drawn = cards.map(([name, parts]) => this.#card(name, parts, at));
    // What the reader is marking, to copy it, stays until it is let go.
    const marked = getSelection();
    if (marked.type !== "Range" || !byId("stages").contains(marked.anchorNode)) byId("stages").replaceChildren(...drawn);
    if (incidents.length ? incidents.at(-1).seq !== this.#lastIncident : this.#lastIncident !== 0) this.#tellIncidents(incidents);
  }

  #card(name, parts, at) {
    const states = parts.map(({ state }) => state);
    const state = states.includes("up") ? (states.some((one) => one === "down" || one === "silent") ? "partly" : "up") : states[0] ?? "unknown";
    const head = element("div", { class: "stage-head" }, worded("h3", `stage.${name}`),
      ...(parts.length > 1 ? [element("span", { class: "count" }, String(parts.length))] : []), worded("span", `part.${state}`, {}, { class: "state small", "data-state": state }));
    return element("li", { class: "panel stage", "data-stage": name, "data-state": state }, head,
      ...(parts.length ? parts.map((part) => this.#part(name, part, parts.length > 1, at)) : [worded("p", "stage.none", {}, { class: "muted" })]));
  }

  #part(name, part, several, at) {
    const rateName = `${name} ${part.process}`;
    const total = part[TOTALS[name]];
    const rate = typeof total === "number" ? this.#rates.take(rateName, total, at) : null;
    const facts = [];
    const fact = (key, shown, attributes = {}) => facts.push(worded("dt", key), element("dd", attributes, shown));
    if (part.sockets !== undefined && name === "sockets") fact("fact.open", number(part.sockets));
    if (name === "sockets" && part.behind !== undefined) fact("fact.behind", number(part.behind), part.behind ? { "data-kind": "warn" } : {});
    if (part.lag_ms !== undefined) fact("fact.lag", part.lag_ms === null ? "–" : shownLag(part.lag_ms));
    if (total !== undefined) {
      fact("fact.rate", rate === null ? "–" : `${number(Math.round(rate))}/s`);
      fact("fact.total", number(total));
    }
    if (part.durability) fact("fact.durability", part.durability);
    if (part.first) fact("fact.first", part.first, { class: "place" });
    if (part.position) fact("fact.position", part.position, { class: "place" });
    if (part.retained_bytes) fact("fact.retained", shownBytes(part.retained_bytes));
    if (part.queries !== undefined && name === "gateway") fact("fact.queries", number(part.queries));
    if (part.started && name === "gateway") fact("fact.since", moment(part.started));
    if (part.version) fact("fact.version", part.version);
    return element("div", { class: "part", "data-process": part.process },
      ...(several ? [element("div", { class: "part-head" },
        element("code", {}, part.process), worded("span", `part.${part.state}`, {}, { class: "state small", "data-state": part.state }))] : []),
      ...(part.what || !several ? [element("p", { class: "what", title: part.what ?? part.process }, part.what ?? part.process)] : []),
      this.#curve(this.#rates.curve(rateName), total !== undefined),
      element("dl", { class: "facts" }, ...facts), ...this.#error(part.error));
  }

  #error(error) {
    if (!error) return [];
    const time = moment(error.at);
    return [element("p", { class: "stage-error", "data-over": String(Boolean(error.over)) },
      worded("span", error.over ? "fact.error_over" : "fact.error", { time }), element("span", { class: "error-text" }, error.text))];
  }

  // The rate of the last minute, drawn without a number: those stand beside it.
  #curve(rates, counted) {
    const svg = document.createElementNS(SVG, "svg");
    svg.toggleAttribute("data-none", !counted);
    svg.setAttribute("viewBox", `0 0 ${CURVE_POINTS - 1} 20`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("class", "curve");
    svg.setAttribute("aria-hidden", "true");
    const most = Math.max(1, ...rates);
    const line = document.createElementNS(SVG, "polyline");
    const from = CURVE_POINTS - rates.length;
    line.setAttribute("points", rates.map((rate, place) => `${from + place},${(19 - 17 * rate / most).toFixed(1)}`).join(" "));
    line.setAttribute("vector-effect", "non-scaling-stroke");
    svg.append(line);
    return svg;
  }

  #tellIncidents(incidents) {
    const fresh = this.#lastIncident;
    this.#lastIncident = incidents.at(-1)?.seq ?? 0;
    byId("incidents-empty").hidden = incidents.length > 0;
    const heads = INCIDENT_COLUMNS.map((column) => worded("th", `incident.${column}`, {}, { scope: "col" }));
    const lines = [...incidents].reverse().map((incident) => {
      const line = element("tr", { "data-kind": incident.kind, "data-seq": String(incident.seq) },
        element("td", {}, element("time", {}, moment(incident.at))),
        element("td", {}, worded("span", `kind.${incident.kind}`, {}, { class: "badge kind" })),
        element("td", {}, element("code", {}, meaning(incident))),
        element("td", {}, element("code", {}, incident.process ?? "")),
        element("td", { class: "n" }, number(incident.n ?? 1)),
        element("td", { class: "wide" }, incident.text ?? ""));
      if (fresh >= 0 && incident.seq > fresh) line.dataset.flash = "update-a";
      return line;
    });
    byId("incidents").replaceChildren(...(incidents.length
      ? [element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...lines)] : []));
  }
}

function meaning({ kind, what }) {
  const shown = String(what ?? "");
  return kind === "close" && known(`close.${shown}`) ? `${shown} ${text(`close.${shown}`)}` : shown;
}
