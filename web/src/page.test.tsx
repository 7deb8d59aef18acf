import { MantineProvider } from "@mantine/core";
import { act, cleanup, fireEvent, render, screen, within } from "@testing-library/react";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { App } from "./app";
import { answerTimeout, type Check, type Report, refreshInterval } from "./readiness";

const since = "2026-11-20T10:00:00Z";
const database: Check = { name: "database", status: "ok", since };
const ready: Report = { status: "ready", checks: [database] };

/** What the server answers to each question in turn; the last answer stays. */
type Answer = { httpStatus: number; body: string } | "refuses" | "hangs";

const says = (report: Report, httpStatus = 200): Answer => ({
	httpStatus,
	body: JSON.stringify(report),
});

function serverThat(...answers: Answer[]) {
	const asked = vi.fn(async (_url: URL, init: RequestInit): Promise<Response> => {
		const answer = answers.length > 1 ? answers.shift() : answers[0];
		if (answer === "hangs") {
			return new Promise((_, reject) => {
				init.signal?.addEventListener("abort", () => reject(init.signal?.reason));
			});
		}
		if (!answer || answer === "refuses") {
			throw new TypeError("fetch failed");
		}
		return new Response(answer.body, { status: answer.httpStatus });
	});
	vi.stubGlobal("fetch", asked);
	return asked;
}

async function open(base = "http://muster.test:8600/") {
	render(
		<MantineProvider>
			<App base={new URL(base)} />
		</MantineProvider>,
	);
	await pass(0);
}

/** Lets time pass, and what it brings happen. */
const pass = (milliseconds: number) => act(() => vi.advanceTimersByTimeAsync(milliseconds));

const state = () => within(screen.getByRole("region", { name: "State of this server" }));
const announced = () => state().getByRole("status").textContent;

beforeEach(() => {
	vi.useFakeTimers();
	// Its timer is the browser's own, which the fake clock does not reach.
	vi.spyOn(AbortSignal, "timeout").mockImplementation((milliseconds) => {
		const late = new AbortController();
		setTimeout(() => late.abort(new DOMException("too late", "TimeoutError")), milliseconds);
		return late.signal;
	});
});

afterEach(() => {
	cleanup();
	vi.useRealTimers();
});

describe("the state of the server", () => {
	test("is unknown until it answers", async () => {
		serverThat("hangs");
		await open();
		expect(announced()).toBe("Asking the server…");
	});

	test("ready, with each check and since when", async () => {
		serverThat(says(ready));
		await open();
		expect(announced()).toMatch(/^Ready/);
		const check = state().getByRole("listitem");
		expect(check.textContent).toMatch(/^database works.*since .*2026/);
		expect(within(check).getByRole("time").getAttribute("datetime")).toBe(since);
	});

	test("degraded, with the reason", async () => {
		const judge: Check = {
			name: "judge",
			status: "degraded",
			reason: "evidence is being loaded",
			since,
		};
		serverThat(says({ status: "degraded", checks: [database, judge] }));
		await open();
		expect(announced()).toMatch(/^Degraded/);
		const [first, second] = state().getAllByRole("listitem");
		expect(first?.textContent).toContain("database works");
		expect(second?.textContent).toContain("judge degradedevidence is being loaded");
	});

	test("unready, which comes with HTTP 503", async () => {
		const failed: Check = { ...database, status: "failed", reason: "see the log of the server" };
		serverThat(says({ status: "unready", checks: [failed] }, 503));
		await open();
		expect(announced()).toMatch(/^Not ready/);
		expect(state().getByRole("listitem").textContent).toContain("see the log of the server");
	});

	test.each<[string, Answer, number]>([
		["refuses", "refuses", 0],
		["takes too long", "hangs", answerTimeout],
	])("no answer when it %s", async (_, answer, wait) => {
		serverThat(answer);
		await open();
		await pass(wait);
		expect(announced()).toContain("The server does not answer");
		expect(state().queryByRole("list")).toBeNull();
	});

	test.each([
		["a proxy's page", "<h1>Bad Gateway</h1>"],
		["JSON of something else", '{"status":"up"}'],
		["null", "null"],
		["a check without a time", '{"status":"ready","checks":[{"name":"a","status":"ok"}]}'],
	])("another's answer: %s", async (_, body) => {
		serverThat({ httpStatus: 502, body });
		await open();
		expect(announced()).toContain("Something else answered (HTTP 502)");
	});

	test("is asked for again every ten seconds", async () => {
		const asked = serverThat(says(ready), "refuses", says(ready));
		await open();
		await pass(refreshInterval - 1);
		expect(asked).toHaveBeenCalledTimes(1);
		await pass(1);
		expect(announced()).toContain("does not answer");
		await pass(refreshInterval);
		expect(announced()).toMatch(/^Ready/);
	});

	test("is asked for at once by the button, and then in step again", async () => {
		const asked = serverThat("refuses", says(ready));
		await open();
		const button = state().getByRole("button", { name: "Ask now" });
		fireEvent.click(button);
		expect(button.textContent).toBe("Asking…");
		await pass(0);
		expect(announced()).toMatch(/^Ready/);
		expect(button.textContent).toBe("Ask now");
		await pass(refreshInterval);
		expect(asked).toHaveBeenCalledTimes(3);
	});

	test("is not asked for any more when the page is gone", async () => {
		const asked = serverThat(says(ready));
		await open();
		cleanup();
		await pass(3 * refreshInterval);
		expect(asked).toHaveBeenCalledTimes(1);
	});

	test("is asked for under the page's own path", async () => {
		const asked = serverThat(says(ready));
		await open("https://example.test/muster/");
		expect(asked.mock.calls[0]?.[0].href).toBe("https://example.test/muster/readyz");
	});
});

describe("connecting an engine", () => {
	const join = "muster join https://example.test/muster/ --key KEY";

	beforeEach(() => {
		serverThat(says(ready));
	});

	test("the join command names the page's own address", async () => {
		await open("https://example.test/muster/");
		const command = screen.getByRole("button", { name: `Copy ${join}` }).parentElement;
		expect(command?.querySelector("code")?.textContent).toBe(join);
		expect(screen.queryByText(/this machine only/)).toBeNull();
	});

	test.each(["127.0.0.1", "[::1]", "localhost"])(
		"warns that %s is not for others",
		async (host) => {
			await open(`http://${host}:8600/`);
			expect(screen.getByText(/this machine only/).textContent).toContain(host);
		},
	);

	test("copies to the clipboard", async () => {
		const writeText = vi.fn(async () => {});
		vi.stubGlobal("navigator", { clipboard: { writeText } });
		await open("https://example.test/muster/");
		const button = screen.getByRole("button", { name: `Copy ${join}` });
		fireEvent.click(button);
		await pass(0);
		expect(writeText).toHaveBeenCalledWith(join);
		expect(button.textContent).toBe("Copied");
		await pass(3_000);
		expect(button.textContent).toBe("Copy");
	});

	test("selects the command where the browser offers no clipboard", async () => {
		vi.stubGlobal("navigator", {});
		await open("https://example.test/muster/");
		const button = screen.getByRole("button", { name: `Copy ${join}` });
		fireEvent.click(button);
		await pass(0);
		expect(button.textContent).toBe("Press Ctrl+C");
		expect(window.getSelection()?.toString()).toBe(join);
	});
});
