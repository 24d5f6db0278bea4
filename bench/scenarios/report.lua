-- What the bench reads from a run, one line: every scenario's script ends here.

-- wrk corrects for requests that it could not send in time, and counts the corrections even where they fall below the
-- smallest latency seen (with pipelining they do); there a plain percentile is 0. `seen` is the part that is not lost.
local function percentiles(latency)
    local seen, lost = 0, 100
    for _ = 1, 20 do
        local middle = (seen + lost) / 2
        if latency:percentile(middle) > 0 then seen = middle else lost = middle end
    end
    return latency:percentile(seen * 0.5), latency:percentile(seen * 0.99)
end

function done(summary, latency, requests)
    local errors = summary.errors
    local p50, p99 = percentiles(latency)
    io.write(string.format(
        "\nresult requests=%d bytes=%d micros=%d p50=%d p99=%d status=%d connect=%d read=%d write=%d timeout=%d\n",
        summary.requests, summary.bytes, summary.duration, p50, p99,
        errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
