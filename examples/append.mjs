#!/usr/bin/env node
// Records audit events from Node. Copy the function; it needs Node 18 or later and nothing else.
// Node's fetch uses no proxy unless it is told to (NODE_USE_ENV_PROXY); if it is, keep localhost in NO_PROXY.
const URL_ = process.env.AUDIT_LOG_URL ?? "http://localhost:48291/append";

/** Resolves to where the event is on disk, once it is; rejects if it is not recorded. */
export async function audit(event, message = "", meta = null, tries = 10) {
  const body = JSON.stringify({ event, message, meta });
  for (let attempt = 1; ; attempt++) {
    let problem, again;
    try {
      const answer = await fetch(URL_, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body,
        signal: AbortSignal.timeout(45_000),
      });
      if (answer.status === 200) return await answer.json();
      problem = await answer.text();
      const passing = answer.status >= 500 || answer.status === 408 || answer.status === 429;
      // Only a refusal that says so left nothing on disk; any other may, and sending again would leave it twice.
      again = passing && answer.headers.get("Audit-Written") === "no";
    } catch (error) {
      problem = error.cause?.message || String(error.cause ?? error);
      const causes = error.cause?.errors ?? [error.cause];
      again = causes.every((cause) => cause?.code === "ECONNREFUSED");
    }
    if (!again || attempt === tries) throw new Error(`${event} was not recorded: ${problem}`);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

await audit("DATA_EXPORT", 'Exported results to "CSV"', { path: "/work/output/results.csv", rows: 12500 });
