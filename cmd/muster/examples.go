package main

// Every command shows an example in its --help; those of admin and order need
// no other text.

// Help is shown by --help.
func (orgCreateCmd) Help() string { return example(`muster admin org create "Customer A" --fleet all`) }

// Help is shown by --help.
func (orgListCmd) Help() string { return example(`muster admin org list --json`) }

// Help is shown by --help.
func (orgSetCmd) Help() string {
	return example(`muster admin org set 01a1fb7c-0e50-7ac2-9f0f-9bb8d21e73b4 --plan COMMUNITY`)
}

// Help is shown by --help.
func (keyCreateCmd) Help() string {
	return example(`muster admin key create --accept --org "Customer A" --uses 5 --ttl 7d --tag web`)
}

// Help is shown by --help.
func (keyListCmd) Help() string { return example(`muster admin key list`) }

// Help is shown by --help.
func (keyRevokeCmd) Help() string {
	return example(`muster admin key revoke 01a1fb7c-0e50-7ac2-9f0f-9bb8d21e73b4`)
}

// Help is shown by --help.
func (machineListCmd) Help() string { return example(`muster admin machine list --state pending`) }

// Help is shown by --help.
func (machineShowCmd) Help() string { return example(`muster admin machine show web1`) }

// Help is shown by --help.
func (machineAcceptCmd) Help() string {
	return example(`muster admin machine accept web1 --org "Customer A"`)
}

// Help is shown by --help.
func (machineClaimCmd) Help() string {
	return example(`muster admin machine claim n7vf3mf34pvil5cv2jgbc3ow6e`)
}

// Help is shown by --help.
func (machineBlockCmd) Help() string { return example(`muster admin machine block web1`) }

// Help is shown by --help.
func (machineUnblockCmd) Help() string { return example(`muster admin machine unblock web1`) }

// Help is shown by --help.
func (machineReleaseCmd) Help() string { return example(`muster admin machine release web1`) }

// Help is shown by --help.
func (machineSetCmd) Help() string {
	return example(`muster admin machine set web1 --name frontend --tag web --tag dmz`) + "\n" +
		`  muster admin machine set trap1 --honeypot --reason "on an address that was never used"`
}

// Help is shown by --help.
func (machineRemoveCmd) Help() string { return example(`muster admin machine remove web1`) }

// Help is shown by --help.
func (alertListCmd) Help() string {
	return example(`muster admin alert list --source 198.51.100.7 --since 7d`)
}

// Help is shown by --help.
func (allowAddCmd) Help() string {
	return example(`muster admin allow add 198.51.100.0/24 2001:db8::/32 --reason "our office" --ttl 30d`)
}

// Help is shown by --help.
func (allowListCmd) Help() string { return example(`muster admin allow list`) }

// Help is shown by --help.
func (allowRemoveCmd) Help() string { return example(`muster admin allow remove 198.51.100.0/24`) }

// Help is shown by --help.
func (canaryListCmd) Help() string { return example(`muster admin canary list --search 8.8.8.8`) }

// Help is shown by --help.
func (canaryAddCmd) Help() string {
	return example(`muster admin canary add 198.51.100.0/24 AS64496 "*.crawler.example.org" --reason "our monitoring"`)
}

// Help is shown by --help.
func (canaryRemoveCmd) Help() string {
	return example(`muster admin canary remove 198.51.100.0/24 --reason "it was sold"`)
}

// Help is shown by --help.
func (canaryDropCmd) Help() string {
	return example(`muster admin canary drop --origin misp:googlebot`)
}

// Help is shown by --help.
func (banListCmd) Help() string { return example(`muster admin ban list --search 198.51.100.0/24`) }

// Help is shown by --help.
func (banShowCmd) Help() string { return example(`muster admin ban show 198.51.100.7`) }

// Help is shown by --help.
func (banLiftCmd) Help() string {
	return example(`muster admin ban lift 198.51.100.7 --reason "the restart loop is mended"`)
}

// Help is shown by --help.
func (banAddCmd) Help() string {
	return example(`muster admin ban add 198.51.100.0/24 --reason "write to noc@example.org" --for 1h --scope login --extend`)
}

// Help is shown by --help.
func (limitListCmd) Help() string { return example(`muster admin limit list`) }

// Help is shown by --help.
func (limitSetCmd) Help() string {
	return example(`muster admin limit set pushes --count "POST /signals" --per machine --over 600 --window 10m --ban 1h --no-extend --exempt-plan ENTERPRISE`)
}

// Help is shown by --help.
func (limitOffCmd) Help() string {
	return example(`muster admin limit off wrong-password --reason "moving the fleet"`)
}

// Help is shown by --help.
func (limitOnCmd) Help() string { return example(`muster admin limit on wrong-password`) }

// Help is shown by --help.
func (limitResetCmd) Help() string { return example(`muster admin limit reset wrong-password`) }

// Help is shown by --help.
func (overrideListCmd) Help() string { return example(`muster admin override list`) }

// Help is shown by --help.
func (overrideAddCmd) Help() string {
	return example(`muster admin override add --org "Customer A" --threshold 200 --limit login-sharing-enrolled --for 30d --reason "fleet behind one NAT"`)
}

// Help is shown by --help.
func (overrideRemoveCmd) Help() string {
	return example(`muster admin override remove 01a1fb7c-0e50-7ac2-9f0f-9bb8d21e73b4`)
}

// Help is shown by --help.
func (findingListCmd) Help() string {
	return example(`muster admin finding list --address 198.51.100.7`)
}

// Help is shown by --help.
func (auditListCmd) Help() string {
	return example(`muster admin audit list --action ban --subject 198.51.100.7`)
}

// Help is shown by --help.
func (unbanListCmd) Help() string { return example(`muster admin unban list --state all`) }

// Help is shown by --help.
func (unbanShowCmd) Help() string { return example(`muster admin unban show 198.51.100.7`) }

// Help is shown by --help.
func (unbanGrantCmd) Help() string {
	return example(`muster admin unban grant 198.51.100.7 --reason "the owner reinstalled it"`)
}

// Help is shown by --help.
func (unbanRefuseCmd) Help() string {
	return example(`muster admin unban refuse 198.51.100.7 --reason "it still guesses passwords: look for a web shell"`)
}

// Help is shown by --help.
func (userCreateCmd) Help() string { return example(`muster admin user create jane < password.txt`) }

// Help is shown by --help.
func (userListCmd) Help() string { return example(`muster admin user list`) }

// Help is shown by --help.
func (userPasswordCmd) Help() string { return example(`muster admin user password jane`) }

// Help is shown by --help.
func (tokenCreateCmd) Help() string { return example(`muster admin token create laptop --ttl 90d`) }

// Help is shown by --help.
func (tokenListCmd) Help() string { return example(`muster admin token list`) }

// Help is shown by --help.
func (tokenRevokeCmd) Help() string {
	return example(`muster admin token revoke 01a1fb7c-0e50-7ac2-9f0f-9bb8d21e73b4`)
}

// Help is shown by --help.
func (rotateCmd) Help() string { return example(`muster admin token-key rotate`) }

// Help is shown by --help.
func (explainCmd) Help() string { return example(`muster admin explain 198.51.100.7`) }

// Help is shown by --help.
func (verdictSetCmd) Help() string {
	return example(`muster admin verdict set 198.51.100.0/24 --never --reason "a partner's scanners" --ttl 30d`) +
		"\n  " + `muster admin verdict set 203.0.113.7 --listed --reason "floods our members" --ttl 3d`
}

// Help is shown by --help.
func (verdictListCmd) Help() string { return example(`muster admin verdict list`) }

// Help is shown by --help.
func (verdictRemoveCmd) Help() string {
	return example(`muster admin verdict remove 198.51.100.0/24 --reason "the contract ended"`)
}

// Help is shown by --help.
func (behaviourListCmd) Help() string { return example(`muster admin behaviour list --search ssh`) }

// Help is shown by --help.
func (statusCmd) Help() string { return example(`muster admin status`) }

// Help is shown by --help.
func (orderAddCmd) Help() string {
	return example(`muster order add --machine web1 --ip 198.51.100.7 --duration 4h --reason "blocked by jane"`)
}

// Help is shown by --help.
func (orderDeleteCmd) Help() string {
	return example(`muster order delete --machine web1 --decision 542085a5-41e0-4506-9216-289574094c8d`)
}

// Help is shown by --help.
func (orderPullCmd) Help() string { return example(`muster order pull --machine web1`) }

// Help is shown by --help.
func (orderReauthCmd) Help() string { return example(`muster order reauth --machine web1`) }

// Help is shown by --help.
func (orderUnblockCmd) Help() string {
	return example(`muster order unsubscribe-blocklist --machine web1 --name firehol`)
}

// Help is shown by --help.
func (orderUnallowCmd) Help() string {
	return example(`muster order unsubscribe-allowlist --machine web1 --id 7f3c --name office`)
}

// Help is shown by --help.
func (orderListCmd) Help() string { return example(`muster order list --machine web1`) }

// example words an example for a command's help.
func example(line string) string { return "Example:\n  " + line }
