package cti

import "time"

// Parameters holds every number that an Item is computed with. Start from
// Default; no field's zero value means anything but zero.
type Parameters struct {
	// Aggressiveness counts bouts: an organisation that reported the source within
	// an hour. Bouts are how many of them make 1 in the last day, week, month and
	// three months; every doubling beyond adds one.
	Bouts [4]float64
	// SpreadHours is in how many hours of the last day an address must have been
	// active for its full aggressiveness: one burst is not persistence.
	SpreadHours float64

	// Severity is what kinds of behaviour count for, by what follows the colon or by
	// the whole name, which stands over it; Unclassified of those without any.
	Severity     map[string]int
	Unclassified int
	// Alone is the most that the word of one organisation without standing makes of
	// a threat; TrustedRank is from which rank on its word is enough.
	Alone       int
	TrustedRank uint8
	// MassCVE is how many organisations make the exploitation of a vulnerability
	// one that is under way everywhere, which adds one.
	MassCVE int

	// Points are what a machine's word is worth by its rank, Honeypot that of a
	// honeypot; Confidence and Spoofable are factors by what its scenario is worth;
	// further voices of one AS add SameAS of the one before. Threshold is what a
	// listing takes. They are the judge's (crowd.Parameters), so that what is
	// listed is believed.
	Points     [6]float64
	Honeypot   float64
	Confidence [4]float64
	Spoofable  [4]float64
	SameAS     float64
	Threshold  float64
	// HalfLife is in which evidence loses half of its weight, by window.
	HalfLife [4]time.Duration
	// TrustAtThreshold is the trust of what would just be listed, of 5.
	TrustAtThreshold float64
	// Fresh is how old the first report must be: what is younger may be a slip.
	Fresh time.Duration

	// Weights of aggressiveness, threat and trust in the total. Nothing is known of
	// devices here: there is no anomaly, which therefore has no weight.
	Weights [3]float64

	// Confident is the evidence, as a share of Threshold, from which confidence is
	// low, medium and high.
	Confident [3]float64

	// Reputation: a total from which an address that is not listed is malicious if
	// confidence is at least medium, one from which it is suspicious, and how many
	// organisations make it so in any case.
	MaliciousTotal  int
	SuspiciousTotal int
	SuspiciousFrom  int

	// Noise: the share of the active organisations that makes a source known
	// everywhere, and at least so many; how mild threats over MildThreat are; and
	// how many organisations the network must have for more than medium.
	NoiseShare  float64
	NoiseLeast  float64
	MildThreat  int
	Unmild      float64
	NoiseActive int

	// Countries: how many organisations of one country there must be for it to be
	// named, and how many countries are.
	CountryLeast int
	Countries    int
}

// Default returns the numbers in force. They start from the proposal in
// features.md 4.5; docs/lookups.md says where they differ and why.
func Default() Parameters {
	const day = 24 * time.Hour
	return Parameters{
		Bouts: [4]float64{2, 5, 10, 15}, SpreadHours: 6,
		Severity: map[string]int{
			"crawl": 1, "tcp:scan": 1, "scan": 2, "fingerprint": 2, "audit": 2, "unusual-activity": 2,
			"bruteforce": 3, "spam": 3, "dos": 3, "fraud": 3,
			"exploit": 4, "exploitation": 4, "rce": 4, "post-exploitation": 5,
		},
		Unclassified: 2, Alone: 2, TrustedRank: 4, MassCVE: 10,
		Points: [6]float64{0, 0.25, 1.5, 2.5, 3.5, 4}, Honeypot: 4,
		Confidence: [4]float64{0, 0.5, 0.8, 1}, Spoofable: [4]float64{1, 0.75, 0.5, 0.25},
		SameAS: 0.25, Threshold: 5,
		HalfLife:         [4]time.Duration{day, 3 * day, 10 * day, 30 * day},
		TrustAtThreshold: 3, Fresh: 30 * time.Minute,
		Weights:        [3]float64{0.4, 0.35, 0.25},
		Confident:      [3]float64{0.05, 0.4, 1},
		MaliciousTotal: 4, SuspiciousTotal: 2, SuspiciousFrom: 5,
		NoiseShare: 0.25, NoiseLeast: 8, MildThreat: 3, Unmild: 0.3, NoiseActive: 10,
		CountryLeast: 3, Countries: 10,
	}
}
