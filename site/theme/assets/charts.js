/* Draws the charts of a page with plotly, in the colors of the page's scheme, and lists the papers behind what is clicked.
   The address keeps what was clicked (#chart/key), so it can be sent on. Texts come in as text, never as markup. */
(() => {
  const papers = JSON.parse(document.getElementById("sk-papers").textContent);
  const charts = new Map();
  const isDark = () => document.body.getAttribute("data-md-color-scheme") === "slate";

  function recolored(value, colors) {
    if (typeof value === "string") return colors[value] ?? value;
    if (Array.isArray(value)) return value.map((item) => recolored(item, colors));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recolored(item, colors)]));
  }

  function draw({ plot, data }) {
    const { data: traces, layout } = recolored(data.figure, isDark() ? data.dark : {});
    const config = { displayModeBar: false, responsive: true, scrollZoom: false };
    return Plotly.react(plot, traces, { ...layout, width: undefined, autosize: true }, config);
  }

  function element(name, text, attributes = {}) {
    const made = Object.assign(document.createElement(name), attributes);
    made.textContent = text;
    return made;
  }

  function list(chart, key) {
    const ids = chart.data.lists[key];
    if (!ids) return false;
    const items = ids.map((id) => {
      const [title, facts, href] = papers[id];
      const item = document.createElement("li");
      item.append(element("a", title, { href }), " ", element("span", facts, { className: "sk-quiet" }));
      return item;
    });
    const found = document.createElement("ul");
    found.className = "sk-found";
    found.append(...items);
    chart.found.replaceChildren(element("h3", `${key.replaceAll("+", " + ")} · ${ids.length}`), found);
    chart.found.hidden = false;
    return true;
  }

  function follow(chart, key) {
    if (!key) return;
    if (chart.data.links[key]) location.assign(chart.data.links[key]);
    else if (chart.data.lists[key]) location.hash = `${chart.name}/${key}`;
  }

  function show() {
    const [name, ...key] = decodeURIComponent(location.hash.slice(1)).split("/");
    const chart = charts.get(name);
    if (chart && key.length && list(chart, key.join("/"))) chart.found.scrollIntoView({ block: "nearest" });
  }

  function keyOf({ points: [point] }) {
    const key = point.customdata;
    return Array.isArray(key) ? key[0] : key;
  }

  for (const figure of document.querySelectorAll(".sk-chart")) {
    const data = JSON.parse(figure.querySelector(".sk-chart__data").textContent);
    const [plot, found] = [".sk-chart__plot", ".sk-chart__found"].map((name) => figure.querySelector(name));
    const chart = { name: figure.dataset.chart, plot, found, data };
    charts.set(chart.name, chart);
    draw(chart).then(() => plot.on("plotly_click", (event) => follow(chart, keyOf(event))));
  }
  document.addEventListener("click", (event) => {
    const row = event.target.closest("a[data-key]");
    if (!row) return;
    event.preventDefault();
    follow(charts.get(row.hash.slice(1)), row.dataset.key);
  });
  new MutationObserver(() => charts.forEach(draw)).observe(document.body, { attributeFilter: ["data-md-color-scheme"] });
  addEventListener("hashchange", show);
  show();
})();
