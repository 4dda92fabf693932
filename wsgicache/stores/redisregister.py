"""The register of those who hold copies of what is in a Redis store: one sorted set, by when they end."""

from __future__ import annotations

from typing import Final

from .redisscripts import Script

DAY_MS: Final = 86_400_000

_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

ATTEND: Final = Script(
    _NOW
    + f"""
-- KEYS: register. ARGV: who, milliseconds (0: is gone).
-- Below zero: when the register was begun, and the longest time that anybody stands in it.
redis.call('PERSIST', KEYS[1])
if redis.call('TYPE', KEYS[1]).ok ~= 'zset' then
  redis.call('DEL', KEYS[1])
  redis.call('ZADD', KEYS[1], string.format('%.0f', -now), '#begun')
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, now)
if ARGV[2] == '0' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
  redis.call('ZADD', KEYS[1], 'LT', string.format('%.0f', -ARGV[2]), '#longest')
end
return redis.call('PEXPIRE', KEYS[1], {DAY_MS})
"""
)
"""Stand in the register for some time from now, by the server's clock, or leave it."""

ATTENDING: Final = Script(
    _NOW
    + """
-- KEYS: register.
if redis.call('TYPE', KEYS[1]).ok ~= 'zset' then return {} end
local begun = redis.call('ZSCORE', KEYS[1], '#begun')
local longest = redis.call('ZSCORE', KEYS[1], '#longest')
if not begun or not longest or now < -begun - longest then return {} end
return redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')
"""
)
"""Who stands in it. Nobody, while it is so young that somebody may have stood in the one that was lost."""
