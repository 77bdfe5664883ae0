-- wrk's script: posts the lines of a file in turn, and says at the end in one line of JSON what came of it.
local posts, following = {}, 0

function init(args)
  wrk.headers["Content-Type"] = "application/json"
  for line in io.lines(args[1]) do
    posts[#posts + 1] = wrk.format("POST", nil, nil, line)
  end
end

function request()
  following = following % #posts + 1
  return posts[following]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "micros": %d, "p50": %d, "p99": %d, "failed": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
