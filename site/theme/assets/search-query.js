/* The search of Material hands a query to Lunr, which reads + - : ^ ~ * as operators and refuses a query in which one of
   them stands without its word or number: `C++`, `kv ~`, `a^b`. Readers type words, so the operators become spaces. */
(() => {
  const post = Worker.prototype.postMessage;
  Worker.prototype.postMessage = function (message, ...options) {
    const isQuery = typeof message?.data === "string";
    return post.call(this, isQuery ? { ...message, data: message.data.replace(/[-+:^~*]+/g, " ") } : message, ...options);
  };
})();
