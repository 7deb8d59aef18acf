import { Code, Paper, Stack, Text, Title } from "@mantine/core";
import { Command } from "./command";
import classes from "./connect.module.css";

/** How to connect an engine to the server at base. */
export function Connect({ base }: { base: URL }) {
	return (
		<Paper component="section" aria-labelledby="connect" withBorder p="lg">
			<Stack gap="md">
				<Title order={2} size="h4" id="connect">
					Connect an engine
				</Title>
				<ol className={classes.steps}>
					<li>
						<Text>
							On this server, make a key. With <Code>--accept</Code> its engines count at once.
						</Text>
						<Command>muster admin key create --accept</Command>
					</li>
					<li>
						<Text>
							On the engine's machine, join with that key in place of <Code>KEY</Code>.
						</Text>
						<Command>{`muster join ${base.href} --key KEY`}</Command>
						{isLoopback(base.hostname) && (
							<Text size="sm" c="dimmed">
								{base.hostname} is this machine only: elsewhere, and in a container, use an address
								that reaches this server.
							</Text>
						)}
					</li>
					<li>
						<Text>Restart the engine, so that it reads its new credentials.</Text>
						<Command>sudo systemctl restart crowdsec</Command>
					</li>
				</ol>
				<Stack gap="xs" mt="sm">
					<Title order={3} size="h5">
						An engine that already points here
					</Title>
					<Text>
						If its <Code>online_api_credentials.yaml</Code> names this server, enrolling it is
						enough.
					</Text>
					<Command>cscli console enroll KEY</Command>
				</Stack>
			</Stack>
		</Paper>
	);
}

function isLoopback(host: string): boolean {
	return host === "localhost" || host === "[::1]" || host.startsWith("127.");
}
