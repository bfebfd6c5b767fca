// The filter box's language: `ward=3 age>=80 name~%王%`. Conditions stand apart by spaces and
// all hold; what they become is docs/protocol.md's `filter`.

/** The operators as they are written, longest first, and as the protocol names them. */
const OPERATORS = [["!=", "ne"], [">=", "gte"], ["<=", "lte"], ["=", "eq"], [">", "gt"], ["<", "lt"], ["~", "like"]];

/** One condition: a column, an operator, and a value that may stand in quotes. */
const CONDITION = /([^\s=!<>~"]+)(!=|>=|<=|=|>|<|~)("(?:[^"\\]|\\.)*"|[^\s"]*)(?=\s|$)|(\S+)/gu;

/** A number as JSON spells it. */
const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

/** What is wrong with a filter, by a key of the console's words. */
export class FilterError extends Error {
  constructor(key, params) {
    super(key);
    this.key = key;
    this.params = params;
  }
}

function unquoted(written) {
  return written.startsWith('"') ? written.slice(1, -1).replace(/\\(.)/g, "$1") : written;
}

/** The value that a column of these types compares with: a text that looks like a number is one only
 *  where the column holds numbers. */
function typed(text, types) {
  if (types.includes("boolean") && (text === "true" || text === "false")) return text === "true";
  const numeric = types.length === 0 || types.includes("integer") || types.includes("number");
  const exact = NUMBER.test(text) && (!Number.isInteger(Number(text)) || Number.isSafeInteger(Number(text)));
  return numeric && exact ? Number(text) : text;
}

/** The types of a topic's column, by its JSON Schema; none where anything is possible. */
export function typesOf(topic, column) {
  const type = topic.schema?.properties?.[column]?.type;
  return type === undefined ? [] : [type].flat();
}

/**
 * Reads a filter; null where nothing is asked. Throws a {@link FilterError} at the first word that
 * is no condition on one of the topic's columns.
 */
export function parseFilter(text, topic) {
  const filter = {};
  for (const [, column, operator, written, stray] of text.matchAll(CONDITION)) {
    if (stray) throw new FilterError("filter.stray", { word: stray });
    if (topic.columns && !topic.columns.includes(column)) throw new FilterError("filter.column", { column });
    const quoted = written.startsWith('"');
    const types = typesOf(topic, column);
    const name = OPERATORS.find(([sign]) => sign === operator)[1];
    if (!quoted && written === "null" && (name === "eq" || name === "ne")) {
      add(filter, column, name, null);
    } else if (!quoted && name === "eq" && written.includes(",")) {
      filter[column] = written.split(",").map((part) => typed(part, types));
    } else {
      const value = name === "like" ? unquoted(written) : typed(unquoted(written), types);
      add(filter, column, name, value);
    }
  }
  return Object.keys(filter).length ? filter : null;
}

// Twice the same column: a range (`age>=80 age<90`), or one of several (`ward=3 ward=4`).
function add(filter, column, name, value) {
  const before = filter[column];
  if (before === undefined) filter[column] = name === "eq" ? value : { [name]: value };
  else if (name === "eq" && (before === null || typeof before !== "object" || Array.isArray(before))) {
    filter[column] = [...[before].flat(), value];
  } else {
    const others = before !== null && typeof before === "object" && !Array.isArray(before) ? before : { eq: before };
    filter[column] = { ...others, [name]: value };
  }
}

/** The condition that a column has this value, as it is written. */
export function condition(column, value) {
  if (value == null) return `${column}=null`;
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  const plain = text !== "" && text !== "null" && !/[\s",\\]/.test(text);
  return `${column}=${plain ? text : `"${text.replace(/["\\]/g, "\\$&")}"`}`;
}

/** The filter's text with the condition added, or without it where it stands there already. */
export function toggled(text, written) {
  const parts = [...text.matchAll(CONDITION)].map(([part]) => part);
  const rest = parts.filter((part) => part !== written);
  return (rest.length < parts.length ? rest : [...parts, written]).join(" ");
}
