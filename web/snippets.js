// Ready code for one topic: read, follow and publish, in each of four languages. All of it is
// complete and says this server's address. Where the server wants to know who asks, it says where
// the token goes, and never the token.

/** The languages, in the order of their tabs. */
export const LANGUAGES = [["javascript", "JavaScript"], ["curl", "curl"], ["nats", "nats"], ["python", "Python"]];

/** The prefix of the bus's subjects, where nothing else is configured. */
const PREFIX = "rowcast";

/** The event that the snippets publish. */
export function sample(topic) {
  return { type: topic.type, data: { hello: topic.type } };
}

const json = JSON.stringify;

/** What stands for the reader's token: a variable of the shell's, where there is a shell. */
const TOKEN = "$TOKEN";

function javascript({ type, key, push }, base, signedIn) {
  const options = signedIn ? `, {
  // Called again before it expires.
  token: async () => "${TOKEN}",
}` : "";
  const connect = `import { connect } from "${base}/rowcast.js";

const rowcast = connect("${base}"${options});
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
  headers: { ${signedIn ? `"authorization": "Bearer ${TOKEN}", ` : ""}"content-type": "application/json" },
  body: JSON.stringify({
    type: "${type}",
    data: { hello: "${type}" },
  }),
});`;
  return key ? { read, follow, publish } : { follow, publish };
}

function curl({ type, key }, base, signedIn) {
  const token = signedIn ? `-H "authorization: Bearer ${TOKEN}" ` : "";
  const read = `curl ${token}'${base}/api/query/${type}?size=3'`;
  const follow = `curl -N ${token}'${base}/api/stream?types=${type}'`;
  const publish = `curl ${token}-H 'content-type: application/json' \\
  -d '${json(sample({ type }))}' \\
  '${base}/api/events'`;
  return key ? { read, follow, publish } : { follow, publish };
}

function nats({ type, key, push }, base, signedIn) {
  // Events are for the users of NATS, who have an account of their own there.
  const token = signedIn ? `-H "Rowcast-Token:${TOKEN}" ` : "";
  const read = `nats request ${token}${PREFIX}.query.${type} '{"params":{"size":3}}'`;
  const changes = `nats subscribe ${PREFIX}.change.${type}`;
  const events = `nats subscribe ${PREFIX}.event.${type}`;
  const follow = key ? `${changes}${push === "page" ? " # says that the page changed" : ""}\n${events}` : events;
  const publish = `nats publish --jetstream ${PREFIX}.event.${type} \\
  '${json(sample({ type }))}'`;
  return key ? { read, follow, publish } : { follow, publish };
}

function python({ type, key }, base, signedIn) {
  const imports = signedIn ? `import json, os
from urllib.request import Request, urlopen

headers = {"authorization": "Bearer " + os.environ["${TOKEN.slice(1)}"]}
` : `import json
from urllib.request import urlopen
`;
  const opened = (path) => (signedIn ? `urlopen(Request("${base}${path}", headers=headers))` : `urlopen("${base}${path}")`);
  const read = `${imports}
with ${opened(`/api/query/${type}?size=3`)} as reply:
    for row in json.load(reply)["data"]:
        print(row)`;
  const follow = `${imports}
with ${opened(`/api/stream?types=${type}`)} as stream:
    for line in stream:
        if line.startswith(b"data: "):
            print(json.loads(line[6:]), flush=True)`;
  const publish = `import json${signedIn ? ", os" : ""}
from urllib.request import Request, urlopen

event = {"type": "${type}", "data": {"hello": "${type}"}}
request = Request(
    "${base}/api/events",
    data=json.dumps(event).encode(),
    headers={${signedIn ? `"authorization": "Bearer " + os.environ["${TOKEN.slice(1)}"], ` : ""}"content-type": "application/json"},
)
with urlopen(request) as answer:
    print(answer.read().decode())`;
  return key ? { read, follow, publish } : { follow, publish };
}

/** `{ read?, follow, publish }` as texts; a topic without rows cannot be read. `signedIn` says that they
 *  must bring a token. */
export function snippets(language, topic, signedIn, base = location.origin) {
  return { javascript, curl, nats, python }[language](topic, base, signedIn);
}
