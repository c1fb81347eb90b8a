// Sorts the results table by the column whose header is pressed; the page is complete without it.
for (const button of document.querySelectorAll("table.results th button")) {
  button.addEventListener("click", () => {
    const header = button.parentElement;
    const column = [...header.parentElement.children].indexOf(header);
    const body = header.closest("table").tBodies[0];
    const rising = header.getAttribute("aria-sort") !== "ascending";
    for (const other of header.parentElement.children) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.value ?? "";
    // What was not measured stays at the end in both directions.
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = column === 0 ? x.localeCompare(y) : Number(x) - Number(y);
      return rising ? order : -order;
    };
    for (const row of [...body.rows].sort(compare)) body.append(row);
  });
}
