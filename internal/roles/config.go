package roles

import (
	"time"

	"muster"
)

// Config is everything that can be set. The comment of each field is its
// documentation: `muster config defaults` and docs/configuration.md are made
// from it, so it is written for operators and names the unit. Tags: yaml is the
// key; range bounds the value; oneof lists the allowed words; secret:"url" has
// the password in a URL hidden wherever the value is shown.
//
// LoadConfig returns a valid Config; DefaultConfig returns the defaults.
type Config struct {
	// Directory for everything that Muster keeps: database, stream, keys, admin
	// socket. Created when absent, readable by its owner only.
	DataDir string `yaml:"data_dir"`
	// Address and port that engines and people connect to. Use 0.0.0.0:8600 or
	// [::]:8600 to listen on every address of the machine.
	Listen string `yaml:"listen"`
	// URL under which engines and people reach Muster, when that is not
	// http://<listen>/: behind a reverse proxy, for instance. May have a path, as in
	// https://example.org/muster/.
	PublicURL string `yaml:"public_url"`
	// Database. Empty means sqlite:<data_dir>/muster.db; sqlite:<path> puts the file
	// elsewhere. It must be on a local disk.
	Database string `yaml:"database" secret:"url"`
	// Stream of signals. Empty means the one embedded in this process, the only one
	// that this release has.
	Bus string `yaml:"bus" secret:"url"`
	// How long a stop waits for requests that are being served, before it cuts them.
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout" range:"1s..10m"`
	// Who may register a machine: everyone (open), those who show an enrolment key
	// (key), nobody (closed). A machine that is registered but not enrolled can pull,
	// and counts nowhere.
	Registration string `yaml:"registration" oneof:"open key closed"`

	// Reverse proxies and balancers in front of Muster, so that it knows who its
	// clients really are.
	Proxies ProxiesConfig `yaml:"proxies"`
	// What is logged, to standard error.
	Log LogConfig `yaml:"log"`
	// Prometheus metrics, on a listener of their own.
	Metrics MetricsConfig `yaml:"metrics"`
	// OpenTelemetry traces.
	Traces TracesConfig `yaml:"traces"`
	// Tokens that machines get at login.
	Tokens TokensConfig `yaml:"tokens"`
	// Bounds on requests. What is over them is refused with a 4xx or 503 that says
	// which of these to turn.
	Limits LimitsConfig `yaml:"limits"`
	// How often clients may log in, and what happens to those that do it more often.
	// These are the limits at the start: muster admin limit changes them while the
	// server runs, and adds others.
	RateLimit RateLimitConfig `yaml:"ratelimit"`
	// How signals are taken in.
	Ingest IngestConfig `yaml:"ingest"`
	// How much of the stream is kept for replay. It must cover the longest time for
	// which judging may stand still.
	Stream StreamConfig `yaml:"stream"`
	// How long data is kept.
	Retention RetentionConfig `yaml:"retention"`
	// When an address is published, and for how long.
	Publish PublishConfig `yaml:"publish"`
	// Who is sent how much of the community blocklist.
	Lists ListsConfig `yaml:"lists"`
	// Allowlists, which are managed with muster admin allowlist.
	Allowlists AllowlistsConfig `yaml:"allowlists"`
	// Blocklists besides the community list, see muster admin blocklist.
	Blocklists BlocklistsConfig `yaml:"blocklists"`
	// What is looked up about addresses.
	Enrich EnrichConfig `yaml:"enrich"`
	// What is known to be good, see muster admin canary.
	Canaries CanariesConfig `yaml:"canaries"`
	// The CrowdSec hub.
	Hub HubConfig `yaml:"hub"`
	// Orders to machines (PAPI).
	Orders OrdersConfig `yaml:"orders"`
}

// ProxiesConfig is the section proxies.
type ProxiesConfig struct {
	// Addresses and ranges of your proxies. What they say about a client is
	// believed; nobody else's headers are.
	Trusted []muster.Source `yaml:"trusted"`
	// The one header that your proxies maintain. The other is not read: proxies pass
	// on what they do not maintain as the client wrote it.
	Header string `yaml:"header" oneof:"x-forwarded-for forwarded"`
	// The PROXY protocol, versions 1 and 2, from balancers that do not speak HTTP:
	// required refuses connections without it and from others than proxies.trusted;
	// optional is for the time of a change.
	Protocol string `yaml:"protocol" oneof:"off optional required"`
}

// LogConfig is the section log.
type LogConfig struct {
	// Least level that is logged. Every request is one line at debug; refused ones
	// are logged at info, failed ones at warn.
	Level string `yaml:"level" oneof:"debug info warn error"`
	// Form of the lines; auto is text on a terminal and JSON otherwise.
	Format string `yaml:"format" oneof:"auto text json"`
}

// MetricsConfig is the section metrics.
type MetricsConfig struct {
	// Address and port of /metrics, also of Go's profiles under /debug/pprof/. Empty
	// turns it off. It has no access control: keep it on a private address.
	Listen string `yaml:"listen"`
}

// TracesConfig is the section traces.
type TracesConfig struct {
	// URL of an OTLP/HTTP collector, such as http://localhost:4318. Empty means the
	// standard variable OTEL_EXPORTER_OTLP_ENDPOINT, and without that no traces.
	Endpoint string `yaml:"endpoint" secret:"url"`
	// Share of requests that are traced.
	Sample float64 `yaml:"sample" range:"0..1"`
}

// TokensConfig is the section tokens.
type TokensConfig struct {
	// How long a token is valid, on average. Engines log in again by themselves.
	Lifetime time.Duration `yaml:"lifetime" range:"5m..30d"`
	// Lifetimes vary by up to this share in both directions, so that engines do not
	// all log in at the same time.
	Spread float64 `yaml:"spread" range:"0..0.5"`
}

// LimitsConfig is the section limits.
type LimitsConfig struct {
	// Largest request body as sent, compressed or not. Clients that show no token
	// (registration, login) may send 1 MiB at most.
	Body Size `yaml:"body" range:"64KiB..1GiB"`
	// Largest request body after decompression.
	Decoded Size `yaml:"decoded" range:"64KiB..1GiB"`
	// Most signals in one request.
	Signals int `yaml:"signals" range:"1..1000000"`
	// Memory for all request bodies that are being decoded at one time; more wait, or
	// are told to come back. It must hold at least one body of limits.decoded. Clients
	// without a token have a quarter as much for themselves.
	InFlight Size `yaml:"inflight" range:"1MiB..64GiB"`
	// How long a request may take to be read and answered, long polls aside.
	RequestTimeout time.Duration `yaml:"request_timeout" range:"1s..10m"`
	// Longest wait of a long poll; engines ask for their own, up to this.
	Poll time.Duration `yaml:"poll" range:"1s..5m"`
	// Most long polls that wait at one time. Each holds a connection, so the limit of
	// open files must allow as many.
	Polls int `yaml:"polls" range:"1..1000000"`
}

// RateLimitConfig is the section ratelimit.
type RateLimitConfig struct {
	// Logins that one address (IPv6: one /64) may make within ratelimit.window, for
	// each of four classes of machines: that have shared signals or not, enrolled or
	// not. One more is refused and punished. Organisations with a plan other than
	// COMMUNITY are not limited. 0 = no limit.
	Logins int `yaml:"logins" range:"0..1000000"`
	// Wrong passwords that one machine may send from one address within
	// ratelimit.window before it may not log in from there any more. 0 = no limit.
	WrongPasswords int `yaml:"wrong_passwords" range:"0..1000000"`
	// Time within which they are counted.
	Window time.Duration `yaml:"window" range:"1s..7d"`
	// What happens to an address that goes over a limit.
	Ban BanConfig `yaml:"ban"`
	// Addresses and ranges that are never limited. More, with an end and a reason,
	// by muster admin override.
	Exempt []muster.Source `yaml:"exempt"`
	// Where a banned client can ask to be let in again: a mail address or a URL. It is
	// told to everybody who is banned.
	Appeal string `yaml:"appeal"`
	// Most bans that are kept. When they are reached, whoever is over a limit is
	// refused request by request.
	MaxBans int `yaml:"max_bans" range:"1000..10000000"`
	// Most counters that are kept, about 140 bytes each; when they are reached, the
	// oldest ones make room.
	MaxCounters int `yaml:"max_counters" range:"10000..16000000"`
}

// BanConfig is the section ratelimit.ban.
type BanConfig struct {
	// How long an address is banned. 0 = it is refused, but not banned.
	Duration time.Duration `yaml:"duration" range:"0s..366d"`
	// What is refused to it: every request to the Central API (all), or logins only
	// (login), so that engines which run go on with the tokens that they have.
	Scope string `yaml:"scope" oneof:"all login"`
	// Whether each request during the ban begins it anew.
	ExtendOnRetry bool `yaml:"extend_on_retry"`
}

// IngestConfig is the section ingest.
type IngestConfig struct {
	// Signals about something older than this are refused, one by one.
	MaxAge time.Duration `yaml:"max_age" range:"1m..30d"`
	// Signals about something further in the future than this are refused: the clock
	// of the machine is wrong. Those within it are taken as of now.
	MaxFuture time.Duration `yaml:"max_future" range:"0s..24h"`
	// How long the first batch waits for others to share its write to disk. Longer
	// means fewer writes and slower answers.
	Linger time.Duration `yaml:"linger" range:"0s..1s"`
	// Memory for signals that wait for the disk; when full, requests are answered 503
	// with a time to come back.
	Queue Size `yaml:"queue" range:"1MiB..16GiB"`
}

// StreamConfig is the section stream.
type StreamConfig struct {
	// Age at which signals leave the stream.
	MaxAge time.Duration `yaml:"max_age" range:"1h..90d"`
	// Size on disk at which the stream takes no more, until old signals leave it.
	MaxBytes Size `yaml:"max_bytes" range:"64MiB..16TiB"`
}

// RetentionConfig is the section retention.
type RetentionConfig struct {
	// How long the alerts of an organisation are kept for it. Whole days.
	Alerts time.Duration `yaml:"alerts" range:"1d..3650d"`
	// How long it is kept how verdicts and the trust in machines came about.
	History time.Duration `yaml:"history" range:"1d..3650d"`
	// How long it is kept who changed what.
	Audit time.Duration `yaml:"audit" range:"1d..3650d"`
}

// PublishConfig is the section publish. Whom the crowd convicts is not set here:
// docs/consensus.md says how it is decided.
type PublishConfig struct {
	// How long after the last report an address stays published. Repeated conviction
	// makes it longer.
	Expiry time.Duration `yaml:"expiry" range:"1h..30d"`
	// Addresses and ranges that are never published, whoever reports them. Private
	// and reserved addresses never are, listed here or not.
	Allowlist []muster.Source `yaml:"allowlist"`
	// Addresses and ranges that many people share: carriers' NAT, VPN exits. More is
	// asked for before one is listed, for a shorter time, and the remedy is a captcha,
	// which the community blocklist cannot carry.
	Shared []muster.Source `yaml:"shared"`
}

// ListsConfig is the section lists.
type ListsConfig struct {
	// How many reports of unmodified hub scenarios an organisation under the plan
	// COMMUNITY must have made within lists.window; below it, and without an
	// organisation, a machine gets lists.tiers.lite. 0 = no such rule.
	Contribution int `yaml:"contribution" range:"0..1000000"`
	// Time within which reports count for lists.contribution and for tailoring by
	// what was reported; stream.max_age when that is shorter.
	Window time.Duration `yaml:"window" range:"1h..90d"`
	// Length and order of the lists. What a machine's own organisation reported
	// comes first in each.
	Tiers TiersConfig `yaml:"tiers"`
	// Whether a list that does not hold everything is chosen, up to 3000 places, by
	// what comes to the reader's organisation most likely, going by its reports and
	// those of organisations with the same visitors. Not where tailoring is none.
	Tailored bool `yaml:"tailored"`
	// How many addresses lists.tailored remembers; those not seen for longest go
	// first. 200000 take 65 MB, and none where everything fits into every list.
	TailoredSources int `yaml:"tailored_sources" range:"1000..10000000"`
}

// TiersConfig is the section lists.tiers.
type TiersConfig struct {
	// Under the plan COMMUNITY, below lists.contribution.
	Lite TierConfig `yaml:"lite"`
	// Under the plan COMMUNITY, and without an organisation.
	Community TierConfig `yaml:"community"`
	// Under the plans SECOPS and ENTERPRISE.
	Premium TierConfig `yaml:"premium"`
}

// TierConfig is a section of lists.tiers.
type TierConfig struct {
	// Most addresses and ranges in one list. 0 = no limit. Engines take about 4
	// seconds to read 15000, and 13 for 100000.
	Size int `yaml:"size" range:"0..10000000"`
	// What a limited list is chosen by: the best of all (none); first what concerns
	// the scenarios that the organisation reported lately (reported), or those that
	// the machine has installed (installed), then what is like them.
	Tailoring string `yaml:"tailoring" oneof:"none reported installed"`
}

// AllowlistsConfig is the section allowlists.
type AllowlistsConfig struct {
	// Where the ranges of cloud providers are, for items like cloud:aws, each as
	// name=path or name=URL: the JSON that AWS, Google and Azure publish, or text with
	// one range in each line. Read every 6 hours.
	Clouds []string `yaml:"clouds"`
	// Whether the URLs of allowlists.clouds may lead to private addresses.
	PrivateURLs bool `yaml:"private_urls"`
	// Most addresses and ranges that one list may stand for. Engines store each of
	// them again with every pull.
	MaxRanges int `yaml:"max_ranges" range:"100..1000000"`
	// How long the addresses of a host name hold when it cannot be looked up any more.
	HostKeep time.Duration `yaml:"host_keep" range:"3h..30d"`
}

// EnrichConfig is the section enrich.
type EnrichConfig struct {
	// Path of a database of AS numbers in MMDB form, such as GeoLite2-ASN.mmdb. With
	// it, machines in one AS count as one crowd; without it, those in one network (/24,
	// IPv6 /48), and an AS cannot be a canary. Read anew when the file changes.
	ASN string `yaml:"asn"`
	// Path of a database of countries in MMDB form, such as GeoLite2-Country.mmdb.
	// Without it, blocklists that are chosen by country are empty, and allowlists let
	// no country through. Read anew when the file changes.
	Country string `yaml:"country"`
}

// BlocklistsConfig is the section blocklists.
type BlocklistsConfig struct {
	// Most entries of one custom list.
	MaxEntries int `yaml:"max_entries" range:"1..1000000"`
	// Whether feeds may be fetched from private, loopback and link-local addresses, and
	// through the proxy that HTTPS_PROXY names. Whoever may add feeds can then have this
	// server ask your own network.
	PrivateFeeds bool `yaml:"private_feeds"`
	// Largest feed, decompressed.
	FeedBytes Size `yaml:"feed_bytes" range:"64KiB..1GiB"`
	// How long fetching a feed may take.
	FeedTimeout time.Duration `yaml:"feed_timeout" range:"1s..10m"`
	// To how many blocklists an organisation may subscribe, by its plan. 0 = no limit.
	Subscriptions SubscriptionsConfig `yaml:"subscriptions"`
}

// SubscriptionsConfig is the section blocklists.subscriptions.
type SubscriptionsConfig struct {
	// Under the plan COMMUNITY.
	Community int `yaml:"community" range:"0..1000000"`
	// Under the plan SECOPS.
	SecOps int `yaml:"secops" range:"0..1000000"`
	// Under the plan ENTERPRISE.
	Enterprise int `yaml:"enterprise" range:"0..1000000"`
}

// CanariesConfig is the section canaries.
type CanariesConfig struct {
	// Whether the reverse names of addresses are looked up that are about to be
	// published, for canaries that are patterns of names, and the names' addresses to
	// make sure. It tells the name servers of their holders that somebody is interested
	// in them; a listing waits 10 to 20 seconds for an answer. Without it, such canaries
	// match nothing.
	Names bool `yaml:"names"`
}

// HubConfig is the section hub.
type HubConfig struct {
	// Path of a hub's .index.json. With it, a report counts for the network only when
	// its scenario is the hub's, unmodified, by hash; without it and hub.dir, the
	// engine's own word for that is taken.
	Index string `yaml:"index"`
	// Folder with a copy of the hub, which is served to engines under /hub/: the
	// working tree of a clone, or the hub's files unpacked. It says what reports count
	// too, unless hub.index is set. Empty = that of the last bundle that was imported,
	// if any. Read anew when files in it change.
	Dir string `yaml:"dir"`
	// Folder with items of your own, laid out like the hub: scenarios/author/name.yaml.
	// They are served beside the hub's.
	Private string `yaml:"private"`
	// Whether reports of scenarios in hub.private count for the network.
	PrivateCounts bool `yaml:"private_counts"`
}

// OrdersConfig is the section orders.
type OrdersConfig struct {
	// How long an order waits for a machine to fetch it.
	Keep time.Duration `yaml:"keep" range:"1m..30d"`
}

// DefaultConfig returns the configuration without file, environment and flags.
func DefaultConfig() *Config {
	const day = 24 * time.Hour
	return &Config{
		DataDir:         "./muster-data",
		Listen:          "127.0.0.1:8600",
		ShutdownTimeout: 20 * time.Second,
		Registration:    "open",
		Proxies:         ProxiesConfig{Header: "x-forwarded-for", Protocol: "off"},
		Log:             LogConfig{Level: "info", Format: "auto"},
		Metrics:         MetricsConfig{Listen: "127.0.0.1:8609"},
		Traces:          TracesConfig{Sample: 1},
		Tokens:          TokensConfig{Lifetime: 12 * time.Hour, Spread: 0.25},
		Limits: LimitsConfig{
			Body: 16 * MiB, Decoded: 16 * MiB, Signals: 10_000, InFlight: 256 * MiB,
			RequestTimeout: 30 * time.Second, Poll: time.Minute, Polls: 50_000,
		},
		RateLimit: RateLimitConfig{
			Logins: 20, WrongPasswords: 10, Window: 50 * time.Minute,
			Ban:     BanConfig{Duration: time.Hour, Scope: "all", ExtendOnRetry: true},
			MaxBans: 250_000, MaxCounters: 1_000_000,
		},
		Ingest: IngestConfig{
			MaxAge: 3 * day, MaxFuture: 10 * time.Minute, Linger: 2 * time.Millisecond, Queue: 64 * MiB,
		},
		Stream:    StreamConfig{MaxAge: 3 * day, MaxBytes: 8 * GiB},
		Retention: RetentionConfig{Alerts: 30 * day, History: 90 * day, Audit: 365 * day},
		Publish:   PublishConfig{Expiry: 3 * day},
		Lists: ListsConfig{Window: 3 * day, Tiers: TiersConfig{
			Lite:      TierConfig{Size: 3_000, Tailoring: "reported"},
			Community: TierConfig{Size: 15_000, Tailoring: "installed"},
			Premium:   TierConfig{Tailoring: "installed"},
		}, Tailored: true, TailoredSources: 200_000},
		Allowlists: AllowlistsConfig{MaxRanges: 20_000, HostKeep: day},
		Blocklists: BlocklistsConfig{MaxEntries: 200_000, FeedBytes: 64 * MiB, FeedTimeout: time.Minute},
		Orders:     OrdersConfig{Keep: day},
	}
}
