import { Anchor, Code, Container, Group, Stack, Text, Title } from "@mantine/core";
import classes from "./app.module.css";
import { Connect } from "./connect";
import { ServerState } from "./state";

/** The page of the server at base, a URL that ends in a slash. */
export function App({ base }: { base: URL }) {
	return (
		<Container size="lg" py="xl">
			<Stack gap="xl">
				<header>
					<Group gap="sm" wrap="nowrap">
						<img src="./mark.svg" alt="" width="36" height="36" />
						<Title order={1}>Muster</Title>
					</Group>
					<Text size="lg" mt="xs" maw="44rem">
						This server is a CrowdSec Central API: engines report attackers here, and pull the
						blocklist that comes of what they all report.
					</Text>
				</header>
				<main className={classes.columns}>
					<ServerState base={base} />
					<Connect base={base} />
				</main>
				<footer>
					<Group gap="lg">
						<Anchor href="readyz" size="sm">
							State as JSON (readyz)
						</Anchor>
						<Anchor href="healthz" size="sm">
							Sign of life (healthz)
						</Anchor>
					</Group>
					<Text size="sm" c="dimmed" mt="xs">
						Everything else is done on the server's command line: <Code>muster admin --help</Code>
					</Text>
				</footer>
			</Stack>
		</Container>
	);
}
