// Ready code for one topic: read, follow and publish, in each of four languages. All of it is
// complete and says this server's address.

/** The languages, in the order of their tabs. */
export const LANGUAGES = [["javascript", "JavaScript"], ["curl", "curl"], ["nats", "nats"], ["python", "Python"]];

/** The prefix of the bus's subjects, where nothing else is configured. */
const PREFIX = "rowcast";

/** The event that the snippets publish. */
export function sample(topic) {
  return { type: topic.type, data: { hello: topic.type } };
}

const json = JSON.stringify;

function javascript({ type, key, push }, base) {
  const connect = `import { connect } from "${base}/rowcast.js";

const rowcast = connect("${base}");
`;
  const read = `${connect}
const { data } = await rowcast.query("${type}", { size: 3 });
console.table(data);`;
  const live = push === "row" && key ? `const list = rowcast.live("${type}");
list.subscribe((rows) => console.table(rows));

` : "";
  const each = push === "page" ? `(frame) => console.table(frame.data)` : `(frame) => console.log(frame)`;
  const follow = `${connect}
${live}rowcast.on("${type}", ${each});`;
  const publish = `await fetch("${base}/api/events", {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({
    type: "${type}",
    data: { hello: "${type}" },
  }),
});`;
  return key ? { read, follow, publish } : { follow, publish };
}

function curl({ type, key }, base) {
  const read = `curl '${base}/api/query/${type}?size=3'`;
  const follow = `curl -N '${base}/api/stream?types=${type}'`;
  const publish = `curl -H 'content-type: application/json' \\
  -d '${json(sample({ type }))}' \\
  '${base}/api/events'`;
  return key ? { read, follow, publish } : { follow, publish };
}

function nats({ type, key, push }) {
  const read = `nats request ${PREFIX}.query.${type} '{"params":{"size":3}}'`;
  const changes = `nats subscribe ${PREFIX}.change.${type}`;
  const events = `nats subscribe ${PREFIX}.event.${type}`;
  const follow = key ? `${changes}${push === "page" ? " # says that the page changed" : ""}\n${events}` : events;
  const publish = `nats publish --jetstream ${PREFIX}.event.${type} \\
  '${json(sample({ type }))}'`;
  return key ? { read, follow, publish } : { follow, publish };
}

function python({ type, key }, base) {
  const read = `import json
from urllib.request import urlopen

with urlopen("${base}/api/query/${type}?size=3") as reply:
    for row in json.load(reply)["data"]:
        print(row)`;
  const follow = `import json
from urllib.request import urlopen

with urlopen("${base}/api/stream?types=${type}") as stream:
    for line in stream:
        if line.startswith(b"data: "):
            print(json.loads(line[6:]), flush=True)`;
  const publish = `import json
from urllib.request import Request, urlopen

event = {"type": "${type}", "data": {"hello": "${type}"}}
request = Request(
    "${base}/api/events",
    data=json.dumps(event).encode(),
    headers={"content-type": "application/json"},
)
with urlopen(request) as answer:
    print(answer.read().decode())`;
  return key ? { read, follow, publish } : { follow, publish };
}

/** `{ read?, follow, publish }` as texts; a topic without rows cannot be read. */
export function snippets(language, topic, base = location.origin) {
  return { javascript, curl, nats, python }[language](topic, base);
}
