import { useCallback, useEffect, useState } from "react";

/** One thing that serving depends on. */
export interface Check {
	name: string;
	status: "ok" | "degraded" | "failed";
	reason?: string;
	/** When status or reason last changed, RFC 3339. */
	since: string;
}

/** What /readyz answers, with 200 and, when unready, with 503. */
export interface Report {
	status: "ready" | "degraded" | "unready";
	checks: Check[];
}

/** What is known of the server: nothing yet, its report, or why there is none. */
export type Readiness =
	| { kind: "loading" }
	| { kind: "report"; report: Report }
	| { kind: "silent" }
	| { kind: "stranger"; httpStatus: number };

/** Milliseconds between an answer and the next question. */
export const refreshInterval = 10_000;

/** Milliseconds until an answer is given up; the server itself takes 2 s at most. */
export const answerTimeout = 5_000;

function isReport(value: unknown): value is Report {
	const report = value as Report | null;
	return (
		["ready", "degraded", "unready"].includes(report?.status ?? "") &&
		Array.isArray(report?.checks) &&
		report.checks.every(isCheck)
	);
}

function isCheck(value: unknown): value is Check {
	const check = value as Check | null;
	return (
		typeof check?.name === "string" &&
		["ok", "degraded", "failed"].includes(check.status) &&
		!Number.isNaN(Date.parse(check.since))
	);
}

/** Asks the server at base once. Rejects only when signal ends the question. */
async function ask(base: URL, signal: AbortSignal): Promise<Readiness> {
	const late = AbortSignal.timeout(answerTimeout);
	let httpStatus: number;
	let body: string;
	try {
		const response = await fetch(new URL("readyz", base), {
			headers: { Accept: "application/json" },
			cache: "no-store",
			signal: AbortSignal.any([signal, late]),
		});
		httpStatus = response.status;
		body = await response.text();
	} catch {
		signal.throwIfAborted();
		return { kind: "silent" };
	}
	try {
		const report: unknown = JSON.parse(body);
		if (isReport(report)) {
			return { kind: "report", report };
		}
	} catch {
		// Not JSON: a proxy's page, for instance.
	}
	return { kind: "stranger", httpStatus };
}

/** Follows the state of the server at base. */
export function useReadiness(base: URL): {
	readiness: Readiness;
	/** A question is under way. */
	asking: boolean;
	/** Asks at once, and then at the usual interval. */
	askNow: () => void;
} {
	const [readiness, setReadiness] = useState<Readiness>({ kind: "loading" });
	const [asking, setAsking] = useState(true);
	const [round, setRound] = useState(0);
	const href = base.href;

	// biome-ignore lint/correctness/useExhaustiveDependencies: a new round asks again
	useEffect(() => {
		const leave = new AbortController();
		let timer: ReturnType<typeof setTimeout>;
		const askAndRepeat = async () => {
			setAsking(true);
			try {
				setReadiness(await ask(new URL(href), leave.signal));
			} catch {
				return; // the page went away
			}
			if (!leave.signal.aborted) {
				setAsking(false);
				timer = setTimeout(askAndRepeat, refreshInterval);
			}
		};
		askAndRepeat();
		return () => {
			leave.abort();
			clearTimeout(timer);
		};
	}, [href, round]);

	const askNow = useCallback(() => setRound((n) => n + 1), []);
	return { readiness, asking, askNow };
}
