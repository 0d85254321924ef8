// Takes a picture of what Perfetto's UI shows once it has loaded its trace:
//     node screenshot.js CHROMIUM URL PNG WIDTH HEIGHT [JAVASCRIPT]
// JAVASCRIPT is evaluated in the page before, and awaited.
'use strict';
const { spawn } = require('child_process');
const fs = require('fs');
const os = require('os');
const path = require('path');

const SECONDS = 90;
const OPTIONS = [
  '--headless=new', '--remote-debugging-pipe', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync', '--hide-scrollbars',
];

// Evaluated in the page. Perfetto's own tests wait for the same promise.
const LOADED = `(async () => {
  while (!window.app?.trace || app.isLoadingTrace) await new Promise(done => setTimeout(done, 50));
  await waitForPerfettoIdle();
})()`;

// The DevTools protocol over two pipes: messages of JSON, each ended by a NUL.
class Browser {
  constructor(program, profile) {
    const sandbox = process.getuid() === 0 ? ['--no-sandbox'] : [];
    this.process = spawn(program, [...OPTIONS, ...sandbox, `--user-data-dir=${profile}`, 'about:blank'], {
      stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'],
    });
    this.ended = new Promise(resolve => this.process.on('close', resolve));
    this.said = '';
    this.asked = new Map();
    this.received = Buffer.alloc(0);
    this.process.stderr.on('data', text => { this.said += text; });
    // Its end is told by `ended`, together with why.
    this.process.stdio[3].on('error', () => {});
    this.process.stdio[4].on('data', bytes => this.receive(bytes));
  }

  receive(bytes) {
    this.received = Buffer.concat([this.received, bytes]);
    for (let end; (end = this.received.indexOf(0)) >= 0; this.received = this.received.subarray(end + 1)) {
      const { id, result, error } = JSON.parse(this.received.subarray(0, end));
      const { resolve, reject, method } = this.asked.get(id) || {};
      if (error) reject?.(new Error(`${method}: ${error.message}`));
      else resolve?.(result);
    }
  }

  call(method, params = {}) {
    const id = this.asked.size + 1;
    this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId: this.session })}\0`);
    return new Promise((resolve, reject) => this.asked.set(id, { resolve, reject, method }));
  }

  async open(url, width, height) {
    const { targetId } = await this.call('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await this.call('Target.attachToTarget', { targetId, flatten: true });
    this.session = sessionId;
    await this.call('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: false });
    await this.call('Page.navigate', { url });
  }

  async evaluate(expression) {
    const answer = await this.call('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    const { exceptionDetails: thrown, result } = answer;
    if (thrown) throw new Error(thrown.exception?.description || thrown.text);
    return result.value;
  }

  async close() {
    this.process.kill();
    await this.ended;
  }
}

async function photograph(browser, url, png, width, height, javascript) {
  await browser.open(url, width, height);
  await browser.evaluate(LOADED);
  if (javascript) {
    await browser.evaluate(javascript);
    await browser.evaluate(LOADED);
  }
  const { data } = await browser.call('Page.captureScreenshot', { format: 'png' });
  fs.writeFileSync(png, Buffer.from(data, 'base64'));
}

// What went wrong is told in the page, or by Chromium if it did not start.
async function giveUp(browser, seconds) {
  await new Promise(resolve => setTimeout(resolve, seconds * 1000).unref());
  const page = await Promise.race([browser.evaluate('document.body.innerText'), browser.ended]);
  throw new Error(`no picture after ${seconds} s; the page says:\n${page}\nChromium says:\n${browser.said}`);
}

async function died(browser) {
  await browser.ended;
  throw new Error(`Chromium ended:\n${browser.said}`);
}

async function main([program, url, png, width, height, javascript]) {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'perfetto-ui-'));
  const browser = new Browser(program, profile);
  try {
    const picture = photograph(browser, url, png, Number(width), Number(height), javascript);
    await Promise.race([picture, giveUp(browser, SECONDS), died(browser)]);
  } finally {
    await browser.close();
    fs.rmSync(profile, { recursive: true, force: true });
  }
}

main(process.argv.slice(2)).catch(error => {
  console.error(error);
  process.exitCode = 1;
});
