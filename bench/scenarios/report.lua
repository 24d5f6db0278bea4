-- What the bench reads from a run, one line: every scenario's script ends here.
function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        "\nresult requests=%d bytes=%d micros=%d p50=%d p99=%d status=%d connect=%d read=%d write=%d timeout=%d\n",
        summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99),
        errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
