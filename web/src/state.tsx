import { Button, Group, Loader, Paper, Stack, Text, Title } from "@mantine/core";
import type { ReactNode } from "react";
import { type Check, type Readiness, type Report, useReadiness } from "./readiness";
import classes from "./state.module.css";

type Tone = "well" | "amiss" | "down";

const headlines: Record<Report["status"], { tone: Tone; word: string; text: string }> = {
	ready: { tone: "well", word: "Ready", text: "Everything that it depends on works." },
	degraded: { tone: "amiss", word: "Degraded", text: "It serves engines, with something amiss." },
	unready: { tone: "down", word: "Not ready", text: "It cannot serve engines now." },
};

const checkWords: Record<Check["status"], { tone: Tone; word: string }> = {
	ok: { tone: "well", word: "Works" },
	degraded: { tone: "amiss", word: "Degraded" },
	failed: { tone: "down", word: "Failed" },
};

/** The state of the server at base, refreshed every 10 seconds. */
export function ServerState({ base }: { base: URL }) {
	const { readiness, asking, askNow } = useReadiness(base);
	return (
		<Paper component="section" aria-labelledby="state" withBorder p="lg">
			<Stack gap="md">
				<Title order={2} size="h4" id="state">
					State of this server
				</Title>
				{/* Only this part is announced, and only when it changes. */}
				<div role="status" aria-live="polite">
					<Headline readiness={readiness} />
				</div>
				{readiness.kind === "report" && <Checks checks={readiness.report.checks} />}
				<Group justify="space-between">
					<Text size="sm" c="dimmed">
						Asked every 10 seconds.
					</Text>
					<Button size="compact-sm" variant="default" onClick={askNow}>
						{asking ? "Asking…" : "Ask now"}
					</Button>
				</Group>
			</Stack>
		</Paper>
	);
}

function Headline({ readiness }: { readiness: Readiness }) {
	switch (readiness.kind) {
		case "loading":
			return (
				<Group gap="sm" wrap="nowrap">
					<Loader size="sm" aria-hidden />
					<Text>Asking the server…</Text>
				</Group>
			);
		case "silent":
			return (
				<Verdict tone="down" word="No answer">
					The server does not answer. It may be stopped, or the network between is broken.
				</Verdict>
			);
		case "stranger":
			return (
				<Verdict tone="down" word="Not Muster">
					Something else answered (HTTP {readiness.httpStatus}): a proxy in front of the server,
					perhaps.
				</Verdict>
			);
		case "report": {
			const { tone, word, text } = headlines[readiness.report.status];
			return (
				<Verdict tone={tone} word={word}>
					{text}
				</Verdict>
			);
		}
	}
}

function Verdict({ tone, word, children }: { tone: Tone; word: string; children: ReactNode }) {
	return (
		<div className={classes.verdict} data-tone={tone}>
			<Mark tone={tone} />
			<div>
				<Text fw={650}>{word}</Text>
				<Text size="sm">{children}</Text>
			</div>
		</div>
	);
}

function Checks({ checks }: { checks: Check[] }) {
	return (
		<ul className={classes.checks}>
			{checks.map((check) => {
				const { tone, word } = checkWords[check.status];
				return (
					<li key={check.name} data-tone={tone}>
						<Mark tone={tone} />
						<div>
							<Text>
								<span className={classes.name}>{check.name}</span> {word.toLowerCase()}
							</Text>
							{check.reason && (
								<Text size="sm" className={classes.reason}>
									{check.reason}
								</Text>
							)}
							<Text size="sm" c="dimmed">
								since <Since at={check.since} />
							</Text>
						</div>
					</li>
				);
			})}
		</ul>
	);
}

function Since({ at }: { at: string }) {
	const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
	return (
		<time dateTime={at} title={at}>
			{local.format(new Date(at))}
		</time>
	);
}

/** Says the tone by shape as well as by colour. */
function Mark({ tone }: { tone: Tone }) {
	const paths: Record<Tone, string> = {
		well: "M5 10.5l3.2 3.2L15 7",
		amiss: "M10 5v6.2M10 14.6v.2",
		down: "M6 6l8 8M14 6l-8 8",
	};
	return (
		<svg className={classes.mark} viewBox="0 0 20 20" aria-hidden="true">
			<circle cx="10" cy="10" r="10" />
			<path d={paths[tone]} />
		</svg>
	);
}
