// Rows of a data set: sort by a column, filter, choose one, mark it as bad.

const MOST = 300; // rows on the page; a filter finds the others

function render({ model, el }) {
  const filter = make("input", { type: "text", placeholder: "filter rows", title: "filter rows" });
  filter.setAttribute("aria-label", "filter rows");
  const only = make("input", { type: "checkbox" });
  only.setAttribute("aria-label", "marked only");
  const says = make("span");
  const frame = focusable("asit-rows-table", []);
  frame.setAttribute("aria-label", "rows of the data set. Up and down choose, x marks as bad.");
  const marked = make("label", {}, [only, " marked only"]);
  el.append(make("div", { className: "asit-rows" }, [make("div", { className: "asit-tools" }, [filter, marked, says]), frame]));
  let sorted = { column: 0, down: false };
  let order = []; // numbers of the rows that are listed
  let listed = null; // the rows that `order` is of

  const bad = () => new Set(model.get("bad"));

  function list() {
    const rows = model.get("rows");
    listed = rows;
    if (sorted.column >= model.get("columns").length) sorted = { column: 0, down: false };
    const words = filter.value.trim().toLowerCase();
    const marks = bad();
    const fits = (i) => (!only.checked || marks.has(i)) && (!words || rows[i].some((cell) => `${cell}`.toLowerCase().includes(words)));
    const of = (i) => rows[i][sorted.column];
    const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : `${a}`.localeCompare(`${b}`));
    order = rows.map((_, i) => i).filter(fits).sort((a, b) => compare(of(a), of(b)) * (sorted.down ? -1 : 1) || a - b);
    paint();
  }

  function paint() {
    if (model.get("rows") !== listed) return list(); // another data set: marks may be told of before its rows
    const [rows, columns, marks, selected] = [model.get("rows"), model.get("columns"), bad(), model.get("selected")];
    const heads = columns.map((name, i) => {
      const arrow = i === sorted.column ? (sorted.down ? " ▼" : " ▲") : "";
      const button = make("button", { textContent: `${name}${arrow}`, title: `sort by ${name}` });
      button.addEventListener("click", () => {
        sorted = { column: i, down: sorted.column === i && !sorted.down };
        list();
      });
      return make("th", {}, [button]);
    });
    const lines = order.slice(0, MOST).map((i) => {
      // One stop of the Tab key for the whole table: x marks the selected row.
      const box = make("input", { type: "checkbox", checked: marks.has(i), title: "mark as bad", tabIndex: -1 });
      box.setAttribute("aria-label", `mark row ${i} as bad`);
      box.addEventListener("click", (event) => (event.stopPropagation(), mark(i)));
      const row = make("tr", { className: marks.has(i) ? "asit-bad" : "" }, [
        make("td", {}, [box]),
        ...rows[i].map((cell) => make("td", { textContent: cell })),
      ]);
      row.setAttribute("aria-selected", i === selected);
      row.addEventListener("click", () => choose(i));
      return row;
    });
    const top = frame.scrollTop;
    const inside = frame.contains(document.activeElement);
    frame.replaceChildren(
      make("table", {}, [make("thead", {}, [make("tr", {}, [make("th", { textContent: "bad" }), ...heads])]), make("tbody", {}, lines)]),
    );
    frame.scrollTop = top;
    if (inside) frame.focus({ preventScroll: true }); // what had the focus was replaced
    const more = order.length > MOST ? `, the first ${MOST} are listed` : "";
    says.textContent = `${order.length} of ${rows.length} rows${more}; ${marks.size} marked as bad`;
  }

  function set(name, value) {
    model.set(name, value);
    model.save_changes();
  }

  function choose(i) {
    set("selected", i);
    frame.focus({ preventScroll: true });
  }

  function mark(i) {
    const marks = bad();
    if (!marks.delete(i)) marks.add(i);
    set("bad", [...marks].sort((a, b) => a - b));
  }

  function onKey(event) {
    const at = order.indexOf(model.get("selected"));
    const keys = {
      ArrowDown: () => choose(order[Math.min(at + 1, Math.min(order.length, MOST) - 1)]),
      ArrowUp: () => choose(order[Math.min(Math.max(at - 1, 0), MOST - 1)]),
      x: () => at >= 0 && at < MOST && mark(order[at]),
    };
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== frame || !(event.key in keys) || !order.length) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
    frame.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
  }

  filter.addEventListener("input", list);
  only.addEventListener("change", list);
  frame.addEventListener("keydown", onKey);
  const handlers = { "change:rows": list, "change:bad": () => (only.checked ? list() : paint()), "change:selected": paint };
  list();
  return follow(model, handlers);
}

export default { render };
