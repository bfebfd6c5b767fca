// The console's words, Chinese and English. An element carries the key of its text
// (`data-t`, with parameters in `data-t-with`) and not the text, so that switching the
// language translates what is already on the page, notices included.

const rows = (n) => `${n.toLocaleString("en")} ${n === 1 ? "row" : "rows"}`;

const TEXTS = {
  en: {
    "title": "Rowcast console",
    "language": "Language",
    "cursor": "cursor",
    "cursor.title": "The last position seen: a lost connection is resumed from here",
    "state.connecting": "connecting",
    "state.live": "live",
    "state.replaying": "catching up",
    "state.reconnecting": "reconnecting",
    "state.stopped": "stopped",
    "reconnect": "Connect now",
    "dismiss": "Dismiss",
    "copy": "Copy",
    "copied": "Copied",

    "notice.unreachable": "server not reachable · trying again",
    "notice.lost": ({ code, reason }) => `connection lost (${code}${reason ? ` ${reason}` : ""}) · reconnecting, tables show the last state`,
    "notice.resumed": ({ n }) => `reconnected · ${n.toLocaleString("en")} caught up · 0 lost`,
    "notice.resumed_pages": "reconnected · 0 lost · tables refreshed",
    "notice.reopened": "reconnected · tables read again",
    "notice.reset_wait": ({ reason }) => `continuity lost (${reason}) · reading the tables again`,
    "notice.reset_done": ({ reason, n }) => `continuity lost (${reason}) · tables read again · ${rows(n)}`,
    "notice.stopped": ({ code, meaning, reason }) => `closed by the server: ${meaning} (${code}${reason ? ` ${reason}` : ""}) · not reconnecting`,
    "notice.no_topics": "no topics with rows are configured · the tester still works",

    "close.1002": "protocol error",
    "close.1003": "binary frames are not accepted",
    "close.1007": "text was not UTF-8",
    "close.1008": "policy",
    "close.1009": "message over the size limit",
    "close.4400": "too many malformed frames",
    "close.4401": "not signed in, or the token has expired",
    "close.4403": "this origin or account is not allowed",

    "demo.label": "Try it",
    "demo.hint": "Change a row from another terminal, with any program, and watch it arrive here:",
    "trigger.info": "Add a patient",
    "trigger.record": "Register a visit",
    "trigger.failed": ({ status, msg }) => `the trigger failed (${status})${msg ? ` · ${msg}` : ""}`,

    "topic.patient": "Patients",
    "topic.visit": "Visits in progress",
    "topic.all_patient_page_data": "Patients",
    "topic.all_active_visit_data": "Visits in progress",
    "tables.more": "More tables",
    "table.rows": ({ n }) => rows(n),
    "table.shown": ({ n, shown }) => `first ${shown.toLocaleString("en")} of ${rows(n)}`,
    "table.partial": ({ n }) => `${rows(n)} of a larger table`,
    "table.inexact": "The server could not place this read in the stream exactly",
    "table.loading": "reading…",
    "table.empty": "no rows",
    "table.error": ({ code, msg }) => `could not be read (${code}) ${msg}`,
    "table.latest": ({ op, key, time }) => `${op} ${key} · ${time}`,
    "table.latest_title": "Show this row",
    "op.insert": "inserted",
    "op.update": "updated",
    "op.delete": "deleted",
    "op.truncate": "emptied",
    "op.reload": "reloaded",

    "toasts": "Application events",
    "tester.title": "Connection tester",
    "tester.url": "Address",
    "tester.presets": "Addresses",
    "tester.samples": "Examples",
    "tester.open": "Open",
    "tester.close": "Close",
    "tester.send": "Send",
    "tester.input": "Text to send",
    "tester.placeholder": "any text · Enter sends, Shift+Enter breaks the line",
    "tester.frames": "Frames",
    "tester.count": ({ n, limit }) => (n >= limit ? `latest ${limit}` : `${n}`),
    "tester.clear": "Clear",
    "tester.empty": "Open a connection, then send any text. Frames both ways are listed here.",
    "tester.closed": "closed",
    "tester.opening": "opening",
    "tester.opened": "open",
    "tester.bytes": ({ n }) => `${n.toLocaleString("en")} B`,
    "tester.in": "received",
    "tester.out": "sent",
    "tester.note": "connection",
    "tester.note_open": ({ url }) => `open ${url}`,
    "tester.note_close": ({ code, reason }) => `closed ${code}${reason ? ` ${reason}` : ""}`,
    "tester.note_bad_url": "not a WebSocket address",
    "tester.binary": ({ n }) => `binary, ${n.toLocaleString("en")} B`,
  },
  zh: {
    "title": "Rowcast 控制台",
    "language": "语言",
    "cursor": "游标",
    "cursor.title": "最后收到的位置：断线后从这里续传",
    "state.connecting": "连接中",
    "state.live": "实时",
    "state.replaying": "补齐中",
    "state.reconnecting": "重连中",
    "state.stopped": "已停止",
    "reconnect": "立即连接",
    "dismiss": "关闭提示",
    "copy": "复制",
    "copied": "已复制",

    "notice.unreachable": "暂时连不上服务器 · 正在重试",
    "notice.lost": ({ code, reason }) => `连接已断开（${code}${reason ? ` ${reason}` : ""}）· 正在重连，表格保持最后的状态`,
    "notice.resumed": ({ n }) => `已重连 · 补上 ${n} 条 · 丢失 0 条`,
    "notice.resumed_pages": "已重连 · 丢失 0 条 · 表格已刷新",
    "notice.reopened": "已重连 · 表格已重新读取",
    "notice.reset_wait": ({ reason }) => `无法续传（${reason}）· 正在重新读取表格`,
    "notice.reset_done": ({ reason, n }) => `无法续传（${reason}）· 表格已重新读取 · ${n} 行`,
    "notice.stopped": ({ code, meaning, reason }) => `服务器已关闭连接：${meaning}（${code}${reason ? ` ${reason}` : ""}）· 不再重连`,
    "notice.no_topics": "没有可显示的数据主题 · 连接测试仍可使用",

    "close.1002": "协议错误",
    "close.1003": "不接受二进制帧",
    "close.1007": "文本不是 UTF-8",
    "close.1008": "不符合策略",
    "close.1009": "消息超过大小上限",
    "close.4400": "格式错误的帧过多",
    "close.4401": "未登录或令牌已过期",
    "close.4403": "来源或账号没有权限",

    "demo.label": "试一试",
    "demo.hint": "在另一个终端里，用任何程序改一行数据，这里立刻就会变：",
    "trigger.info": "新增个人信息",
    "trigger.record": "新增来访登记",
    "trigger.failed": ({ status, msg }) => `触发失败（${status}）${msg ? ` · ${msg}` : ""}`,

    "topic.patient": "个人信息",
    "topic.visit": "来访登记 · 进行中",
    "topic.all_patient_page_data": "个人信息",
    "topic.all_active_visit_data": "来访登记 · 进行中",
    "tables.more": "更多表格",
    "table.rows": ({ n }) => `${n.toLocaleString("en")} 行`,
    "table.shown": ({ n, shown }) => `共 ${n.toLocaleString("en")} 行，显示前 ${shown} 行`,
    "table.partial": ({ n }) => `${n.toLocaleString("en")} 行（表格的一部分）`,
    "table.inexact": "服务器未能确定这次读取在事件流中的准确位置",
    "table.loading": "读取中…",
    "table.empty": "暂无数据",
    "table.error": ({ code, msg }) => `读取失败（${code}）${msg}`,
    "table.latest": ({ op, key, time }) => `${op} ${key} · ${time}`,
    "table.latest_title": "定位到这一行",
    "op.insert": "新增",
    "op.update": "更新",
    "op.delete": "删除",
    "op.truncate": "清空",
    "op.reload": "重新读取",

    "toasts": "应用消息",
    "tester.title": "连接测试",
    "tester.url": "服务地址",
    "tester.presets": "常用地址",
    "tester.samples": "示例",
    "tester.open": "开启连接",
    "tester.close": "断开",
    "tester.send": "发送",
    "tester.input": "要发送的内容",
    "tester.placeholder": "任意文本 · Enter 发送，Shift+Enter 换行",
    "tester.frames": "收发记录",
    "tester.count": ({ n, limit }) => (n >= limit ? `最近 ${limit} 条` : `${n} 条`),
    "tester.clear": "清空",
    "tester.empty": "开启连接后发送任意文本，双向的每一帧都会列在这里。",
    "tester.closed": "未连接",
    "tester.opening": "连接中",
    "tester.opened": "已连接",
    "tester.bytes": ({ n }) => `${n.toLocaleString("en")} 字节`,
    "tester.in": "收到",
    "tester.out": "发送",
    "tester.note": "连接",
    "tester.note_open": ({ url }) => `已连接 ${url}`,
    "tester.note_close": ({ code, reason }) => `已断开 ${code}${reason ? ` ${reason}` : ""}`,
    "tester.note_bad_url": "不是有效的 WebSocket 地址",
    "tester.binary": ({ n }) => `二进制，${n.toLocaleString("en")} 字节`,
  },
};

const STORED = "rowcast.language";
let language = stored() ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

// Storage can be forbidden by the browser's settings; the choice is then not remembered.
function stored() {
  try {
    const chosen = localStorage.getItem(STORED);
    return chosen in TEXTS ? chosen : null;
  } catch {
    return null;
  }
}

/** The text of `key` in the present language; the key itself where there is none. */
export function text(key, params = {}) {
  const entry = TEXTS[language][key];
  return typeof entry === "function" ? entry(params) : entry ?? key;
}

/** Whether `key` is known, for texts that only some topics and codes have. */
export function known(key) {
  return key in TEXTS[language];
}

/**
 * Puts a text on an element and keeps its key there, to be translated later.
 * A parameter that is itself to be translated is given as `{ t: key }`.
 */
export function say(element, key, params = {}) {
  element.dataset.t = key;
  element.dataset.tWith = JSON.stringify(params);
  translate(element);
}

/** Puts a text on an element that no language changes. */
export function sayPlain(element, plain) {
  delete element.dataset.t;
  delete element.dataset.tWith;
  element.textContent = plain;
}

function translate(element) {
  const { t, tWith, tLabel, tTitle, tPlaceholder } = element.dataset;
  if (t) {
    const params = JSON.parse(tWith ?? "{}");
    for (const [name, value] of Object.entries(params)) {
      if (value?.t) params[name] = text(value.t);
    }
    element.textContent = text(t, params);
  }
  if (tLabel) element.setAttribute("aria-label", text(tLabel));
  if (tTitle) element.title = text(tTitle);
  if (tPlaceholder) element.placeholder = text(tPlaceholder);
}

/** Translates everything inside `root` that carries a key. */
export function translateAll(root = document) {
  for (const element of root.querySelectorAll("[data-t],[data-t-label],[data-t-title],[data-t-placeholder]")) {
    translate(element);
  }
}

function show() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = text("title");
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  }
  translateAll();
}

/** Shows the page in the reader's language and lets the header's buttons change it. */
export function start() {
  for (const button of document.querySelectorAll("[data-language]")) {
    button.addEventListener("click", () => {
      language = button.dataset.language;
      try {
        localStorage.setItem(STORED, language);
      } catch { /* not remembered, as above */ }
      show();
    });
  }
  show();
}
