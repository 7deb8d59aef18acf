package swarm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is the unit of CPU times in /proc (USER_HZ), 100 on every
// Linux that Go runs on.
const ticksPerSecond = 100

// ProcessUsage reads a process on this machine from /proc; elsewhere than on
// Linux it always fails. RSS is the peak.
func ProcessUsage(pid int) func() (Usage, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	return func() (Usage, error) {
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			return Usage{}, err
		}
		cpu, err := parseStat(stat)
		if err != nil {
			return Usage{}, err
		}
		status, err := os.ReadFile(filepath.Join(dir, "status"))
		if err != nil {
			return Usage{}, err
		}
		rss, err := parseStatus(status, "VmHWM")
		return Usage{CPU: cpu, RSS: rss}, err
	}
}

// CurrentRSS reads the present resident memory of a process, in bytes.
func CurrentRSS(pid int) (int64, error) {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, err
	}
	return parseStatus(status, "VmRSS")
}

// parseStat reads utime and stime, fields 14 and 15 of proc_pid_stat(5). The
// second field is the program's name in parentheses and may hold anything.
func parseStat(stat []byte) (time.Duration, error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc stat: expected 13 fields after the name, got %d", len(fields))
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// parseStatus reads a line like "VmHWM:	   36868 kB".
func parseStatus(status []byte, name string) (int64, error) {
	for line := range bytes.Lines(status) {
		rest, ok := bytes.CutPrefix(line, []byte(name+":"))
		if !ok {
			continue
		}
		kb, err := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc status: %s: %w", name, err)
		}
		return kb << 10, nil
	}
	return 0, fmt.Errorf("/proc status: no %s", name)
}

// MetricsUsage reads a server from its Prometheus page. RSS is the highest
// value seen so far.
func MetricsUsage(url string) func() (Usage, error) {
	var peak int64
	return func() (Usage, error) {
		m, err := Scrape(context.Background(), url)
		if err != nil {
			return Usage{}, err
		}
		cpu, ok := m["process_cpu_seconds_total"]
		if !ok {
			return Usage{}, errors.New("the metrics page has no process_cpu_seconds_total")
		}
		peak = max(peak, int64(m["process_resident_memory_bytes"]))
		return Usage{CPU: time.Duration(cpu * float64(time.Second)), RSS: peak}, nil
	}
}

// MetricsRSS reads the present resident memory of a server, in bytes, from its
// Prometheus page.
func MetricsRSS(url string) (int64, error) {
	m, err := Scrape(context.Background(), url)
	if err != nil {
		return 0, err
	}
	rss, ok := m["process_resident_memory_bytes"]
	if !ok {
		return 0, errors.New("the metrics page has no process_resident_memory_bytes")
	}
	return int64(rss), nil
}

// Metrics are the values of a Prometheus page by name, summed over labels.
type Metrics map[string]float64

const maxMetrics = 16 << 20

// Scrape gets a Prometheus page from this machine.
func Scrape(ctx context.Context, url string) (Metrics, error) {
	if _, err := ParseTarget(url); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("metrics: expected status 200 of %s, got %d", url, res.StatusCode)
	}
	return parseMetrics(io.LimitReader(res.Body, maxMetrics))
}

// parseMetrics reads the text format of Prometheus; timestamps are not
// expected.
func parseMetrics(r io.Reader) (Metrics, error) {
	m := Metrics{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		space := strings.LastIndexByte(line, ' ')
		if space < 0 {
			return nil, fmt.Errorf("metrics: expected a name and a value, got %q", line)
		}
		v, err := strconv.ParseFloat(line[space+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
		name, _, _ := strings.Cut(line[:space], "{")
		m[strings.TrimSpace(name)] += v
	}
	return m, lines.Err()
}
