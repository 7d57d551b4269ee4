// Measures graphile-worker and pg-boss the way `nereid bench dispatch` measures Nereid.
//
//   node peers.mjs graphile-worker|pg-boss submit CLIENTS SECONDS
//   node peers.mjs graphile-worker|pg-boss drain JOBS
//   node peers.mjs graphile-worker|pg-boss latency SAMPLES
//
// The server is the one that libpq's PG* variables name. Prints one JSON object. Each peer is
// configured for what is measured: see the comments, and docs/benchmarks.md for the reasons.

import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { Logger, makeWorkerUtils, run, runMigrations } from "graphile-worker";
import pg from "pg";
import { PgBoss } from "pg-boss";

const TASK = "noop";
/** Jobs put into the queue by one statement before a drain. */
const PRELOAD = 1000;
/** A drain is measured between these shares of its jobs, so that start and end do not count. */
const WARM = 0.1;

const silent = new Logger(() => () => {});
const pool = (max) => {
  const made = new pg.Pool({ max });
  const ignore = () => {};
  made.on("error", ignore).on("connect", (client) => client.on("error", ignore));
  return made;
};

const graphileWorker = {
  async open(clients) {
    this.pool = pool(clients);
    await runMigrations({ pgPool: this.pool, logger: silent });
    this.utils = await makeWorkerUtils({ pgPool: this.pool, logger: silent });
    this.submit = () => this.utils.addJob(TASK, {});
  },
  async preload(jobs) {
    await this.utils.addJobs(Array.from({ length: jobs }, () => ({ identifier: TASK, payload: {} })));
  },
  // The settings of its own performance test.
  async work(handler) {
    const preset = {
      worker: {
        concurrentJobs: 24,
        maxPoolSize: 25,
        localQueue: { size: 500, refetchDelay: { durationMs: 10 } },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
      },
    };
    await this.run(handler, { pgPool: pool(25), preset });
  },
  // Fetched one by one, as in its own latency test: its batches are for throughput.
  async listen(handler) {
    await this.run(handler, { pgPool: pool(10), concurrency: 1 });
  },
  async run(handler, options) {
    const own = options.pgPool;
    const taskList = { [TASK]: async () => handler(1) };
    this.runner = await run({ taskList, noHandleSignals: true, logger: silent, ...options });
    this.closePool = () => own.end();
  },
  async close() {
    await this.runner?.stop();
    await this.closePool?.();
    await this.utils.release();
    await this.pool.end();
  },
};

const pgBoss = {
  async open(clients) {
    this.boss = new PgBoss({ max: clients, useListenNotify: true });
    this.boss.on("error", (e) => console.error(e));
    await this.boss.start();
    // Wakes its workers by NOTIFY, which it does not by default; only where that is measured.
    await this.boss.createQueue(TASK, { notify: clients === LATENCY_CLIENTS });
    this.submit = () => this.boss.send(TASK, {});
  },
  async preload(jobs) {
    await this.boss.insert(TASK, Array.from({ length: jobs }, () => ({ data: {} })));
  },
  async work(handler) {
    const options = { batchSize: 500, localConcurrency: 4, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 };
    await this.boss.work(TASK, options, async (jobs) => handler(jobs.length));
  },
  async listen(handler) {
    await this.boss.work(TASK, { pollingIntervalSeconds: 0.5 }, async () => handler(1));
  },
  async close() {
    await this.boss.stop({ graceful: false });
  },
};

/** Connections of the latency measurement. */
const LATENCY_CLIENTS = 9;

/** Submissions per second of so many clients, each waiting for its answer before the next. */
async function submit(queue, clients, seconds) {
  await queue.open(clients);
  const client = async (until) => {
    let done = 0;
    while (performance.now() < until) {
      await queue.submit();
      done += 1;
    }
    return done;
  };
  const all = async (time) => {
    const until = performance.now() + time * 1000;
    const done = await Promise.all(Array.from({ length: clients }, () => client(until)));
    return done.reduce((a, b) => a + b, 0);
  };
  await all(0.5);
  const started = performance.now();
  const jobs = await all(seconds);
  return { per_second: jobs / ((performance.now() - started) / 1000) };
}

/** Jobs per second of one worker process on a queue that was filled before. */
async function drain(queue, jobs) {
  await queue.open(8);
  for (let left = jobs; left > 0; left -= PRELOAD) {
    await queue.preload(Math.min(left, PRELOAD));
  }
  const first = Math.floor(jobs * WARM);
  let done = 0;
  let began = null;
  let beganAt = 0;
  const ended = new Promise((resolve) => {
    queue
      .work((n) => {
        done += n;
        if (began === null && done >= first) {
          began = performance.now();
          beganAt = done;
        }
        if (done >= jobs) resolve(performance.now());
      })
      .catch(resolve);
  });
  const end = await ended;
  return { per_second: (done - beganAt) / ((end - began) / 1000) };
}

/** Milliseconds from the call that submits to the start of the job, one at a time. */
async function latency(queue, samples) {
  await queue.open(LATENCY_CLIENTS);
  let started;
  await queue.listen(() => started(performance.now()));
  // Lets everything connect and settle.
  await sleep(1000);
  const once = async () => {
    const start = new Promise((resolve) => (started = resolve));
    const called = performance.now();
    await queue.submit();
    const time = (await start) - called;
    await sleep(5 + Math.random() * 10);
    return time;
  };
  for (let i = 0; i < 20; i += 1) await once();
  const times = [];
  for (let i = 0; i < samples; i += 1) times.push(await once());
  times.sort((a, b) => a - b);
  const share = (q) => times[Math.min(times.length - 1, Math.floor(times.length * q))];
  return { p50_ms: share(0.5), p99_ms: share(0.99) };
}

const [peer, what, ...numbers] = process.argv.slice(2);
const queue = { "graphile-worker": graphileWorker, "pg-boss": pgBoss }[peer];
const measure = { submit, drain, latency }[what];
if (!queue || !measure) {
  console.error("usage: peers.mjs graphile-worker|pg-boss submit|drain|latency NUMBER…");
  process.exit(2);
}
const figures = await measure(queue, ...numbers.map(Number));
console.log(JSON.stringify(figures));
await queue.close();
process.exit(0);
