import { Button, VisuallyHidden } from "@mantine/core";
import { Fragment, useEffect, useRef, useState } from "react";
import classes from "./command.module.css";

type Outcome = "copied" | "selected";

/**
 * Puts text on the clipboard. Browsers offer the clipboard only to https and
 * localhost, and Muster is often reached by http: then the element that shows the
 * text is selected, and copied the old way if the browser still can.
 */
async function copy(text: string, shown: HTMLElement): Promise<Outcome> {
	try {
		await navigator.clipboard.writeText(text);
		return "copied";
	} catch {
		// Not offered (then clipboard is undefined) or not allowed.
	}
	const selection = window.getSelection();
	selection?.selectAllChildren(shown);
	if (document.execCommand?.("copy")) {
		selection?.removeAllRanges();
		return "copied";
	}
	return "selected";
}

const announcements: Record<Outcome, string> = {
	copied: "Copied",
	selected: "Selected: press Ctrl+C or ⌘C to copy",
};

/** A command line and a button that copies it. */
export function Command({ children: text }: { children: string }) {
	const shown = useRef<HTMLElement>(null);
	const [outcome, setOutcome] = useState<Outcome>();

	useEffect(() => {
		if (outcome) {
			const timer = setTimeout(() => setOutcome(undefined), 3_000);
			return () => clearTimeout(timer);
		}
	}, [outcome]);

	const onClick = async () => {
		if (shown.current) {
			setOutcome(await copy(text, shown.current));
		}
	};
	return (
		<div className={classes.command}>
			<code ref={shown}>
				{text.split(" ").map((word, i) => (
					// biome-ignore lint/suspicious/noArrayIndexKey: the words of a command stay in place
					<Fragment key={i}>
						{i > 0 && " "}
						<span>{word}</span>
					</Fragment>
				))}
			</code>
			<Button size="compact-sm" variant="default" onClick={onClick} aria-label={`Copy ${text}`}>
				{outcome === "copied" ? "Copied" : outcome === "selected" ? "Press Ctrl+C" : "Copy"}
			</Button>
			<VisuallyHidden role="status">{outcome && announcements[outcome]}</VisuallyHidden>
		</div>
	);
}
