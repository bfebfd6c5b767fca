import { useState } from "react";
import { useLive } from "rowcast/react";
import { gateway, rowcast, usePaged, useStatus } from "./rowcast.js";

const COLUMNS = { name: "姓名", age: "年龄", ward: "病区", bed: "床号", care_level: "护理等级", note: "备注" };
const STATES = { connecting: "正在连接", live: "实时", offline: "连接断开,正在重连", stopped: "服务器拒绝连接" };

export function App() {
  const status = useStatus();
  return (
    <>
      <h1>养老院 <output id="status" className={status}>{STATES[status]}</output></h1>
      <Patients />
      <Ward />
    </>
  );
}

/** A page of all: every turn, every word in the box is another list, read again when a change touches it. */
function Patients() {
  const [text, setText] = useState("");
  const [order, setOrder] = useState("id");
  const [number, setNumber] = useState(1);
  const filter = text ? { name: { like: `%${text}%` } } : undefined;
  const { rows, status, page, error } = usePaged("patient", { filter, order, page: number, size: 8 });
  const pages = page ? Math.max(1, Math.ceil(page.total / page.size)) : 1;
  // The rows of the last page may be gone meanwhile.
  if (status === "live" && page?.number === number && number > pages) setNumber(pages);

  const sort = (column) => {
    setOrder(order === column ? `${column} desc` : column);
    setNumber(1);
  };
  return (
    <section id="patients">
      <h2>个人信息 {page && <small>{page.total} 人</small>}</h2>
      <div className="bar">
        <input type="search" placeholder="按姓名筛选" aria-label="按姓名筛选" value={text}
          onChange={(event) => { setText(event.target.value); setNumber(1); }} />
        <NewPatient />
      </div>
      {error && <p role="alert">{error.message}</p>}
      <Table rows={rows} status={status} order={order} sort={sort} />
      <nav>
        <button disabled={number <= 1} onClick={() => setNumber(number - 1)}>上一页</button>
        <span>{number} / {pages}</span>
        <button disabled={number >= pages} onClick={() => setNumber(number + 1)}>下一页</button>
      </nav>
    </section>
  );
}

/** The whole of one ward: another list of the same topic, on the same socket, kept by the events themselves. */
function Ward() {
  const [ward, setWard] = useState("3");
  const { rows, status } = useLive(rowcast, "patient", { filter: { ward }, order: "age desc" });
  return (
    <section id="ward">
      <h2>
        <select aria-label="病区" value={ward} onChange={(event) => setWard(event.target.value)}>
          {["2", "3", "5", "6"].map((one) => <option key={one} value={one}>{one} 病区</option>)}
        </select>
        <small>{rows.length} 人,从年长到年幼</small>
      </h2>
      <Table rows={rows} status={status} />
    </section>
  );
}

/** Writes to the database, and to nothing else: the row arrives in the lists by itself. */
function NewPatient() {
  const [name, setName] = useState("");
  const [failed, setFailed] = useState("");
  const add = async (event) => {
    event.preventDefault();
    const row = { name, age: 60 + Math.floor(Math.random() * 40), ward: "3" };
    try {
      const answer = await fetch(`${gateway}/chat/update/info/`, {
        method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(row),
      });
      setFailed(answer.ok ? "" : (await answer.json()).msg);
      if (answer.ok) setName("");
    } catch {
      setFailed("没有保存:连接不上服务器");
    }
  };
  return (
    <form onSubmit={add}>
      {failed && <span role="alert">{failed}</span>}
      <input placeholder="姓名" aria-label="新老人的姓名" required value={name} onChange={(event) => setName(event.target.value)} />
      <button>新增到 3 病区</button>
    </form>
  );
}

function Table({ rows, status, order = "", sort }) {
  const arrow = (column) => (order === column ? " ↑" : order === `${column} desc` ? " ↓" : "");
  return (
    <table className={status}>
      <thead>
        <tr>
          {Object.entries(COLUMNS).map(([column, title]) => (
            <th key={column}>{sort ? <button onClick={() => sort(column)}>{title}{arrow(column)}</button> : title}</th>
          ))}
        </tr>
      </thead>
      <tbody>
        {/* Another text makes another row, which flashes as it comes. */}
        {rows.map((row) => (
          <tr key={JSON.stringify(row)} data-id={row.id}>
            {Object.keys(COLUMNS).map((column) => <td key={column} data-column={column}>{row[column]}</td>)}
          </tr>
        ))}
        {!rows.length && <tr><td colSpan={Object.keys(COLUMNS).length}>{status === "live" ? "没有符合的老人" : "正在读取"}</td></tr>}
      </tbody>
    </table>
  );
}
