//! How much time has really passed, by a clock that may be wrong: on a phone it says 1970 or 2099 now and then.
//!
//! What is deleted for its age is deleted by the time that *passed*, call by call. A jump counts for nothing, and until
//! it is confirmed nothing is deleted at all.

use sprag_store::StoreError;

use crate::codec::{Reader, Writer};

/// A clock may move on so far between two calls of upkeep: 30 days.
pub const CLOCK_JUMP_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// A clock may go back so far, as one does that was set to another zone: one day. Nothing has passed then.
pub const CLOCK_BACK_MS: u64 = 24 * 3_600 * 1_000;
/// A doubted clock that runs steadily for so long is believed without confirmation: 30 days. Nobody may be there to
/// confirm it, as with an agent that was switched off for a while; the jump itself still counts for nothing.
pub const CLOCK_STEADY_MS: u64 = 30 * 24 * 3_600 * 1_000;

/// A clock that jumped, and that nobody has confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClockInDoubt {
    /// What it said when it was last believed, in milliseconds since 1970.
    pub last: u64,
    /// What it says now.
    pub now: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TrustedTime {
    /// What the clock said when it was last believed; 0: never.
    last: u64,
    /// Milliseconds that have passed for sure since the first look at the clock.
    passed: u64,
    doubt: Option<Doubt>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Doubt {
    /// What the doubted clock said last.
    latest: u64,
    /// How long it has run without another jump.
    steady: u64,
    /// How long this and other doubted clocks have run since one was believed.
    elapsed: u64,
}

/// What a look at the clock tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Believed,
    /// It jumped since the last look.
    Jumped(ClockInDoubt),
    /// It jumped before, and nobody has confirmed it.
    Doubted(ClockInDoubt),
}

/// Whether a clock that said `last` may say `now`, if `elapsed` is known to have passed.
fn follows(last: u64, now: u64, elapsed: u64) -> bool {
    let latest = last.saturating_add(elapsed).saturating_add(CLOCK_JUMP_MS);
    now.saturating_add(CLOCK_BACK_MS) >= last && now <= latest
}

impl TrustedTime {
    /// Milliseconds that have passed for sure.
    pub(crate) fn passed(&self) -> u64 {
        self.passed
    }

    /// Begins at a time that the clock said before, unless it has begun.
    pub(crate) fn begin(&mut self, at: u64) {
        if self.last == 0 {
            self.last = at;
        }
    }

    fn believe(&mut self, now: u64, passed: u64) {
        self.passed = self.passed.saturating_add(passed);
        self.last = now;
        self.doubt = None;
    }

    /// What `now` would mean, without remembering it.
    pub(crate) fn is_believable(&self, now: u64) -> bool {
        self.last == 0 || follows(self.last, now, self.elapsed())
    }

    fn elapsed(&self) -> u64 {
        self.doubt.map_or(0, |doubt| doubt.elapsed)
    }

    /// Looks at the clock.
    pub(crate) fn look(&mut self, now: u64) -> Look {
        if self.is_believable(now) {
            let passed = if self.last == 0 {
                0
            } else {
                now.saturating_sub(self.last)
            };
            // After a step back the time goes on where it was.
            self.believe(now.max(self.last), passed);
            return Look::Believed;
        }
        let doubted = ClockInDoubt {
            last: self.last,
            now,
        };
        let elapsed = self.elapsed();
        match self.doubt {
            Some(doubt) if follows(doubt.latest, now, 0) => {
                let ran = now.saturating_sub(doubt.latest);
                let steady = doubt.steady.saturating_add(ran);
                if steady >= CLOCK_STEADY_MS {
                    self.believe(now, steady);
                    return Look::Believed;
                }
                self.doubt = Some(Doubt {
                    latest: now.max(doubt.latest),
                    steady,
                    elapsed: elapsed.saturating_add(ran),
                });
                Look::Doubted(doubted)
            }
            _ => {
                self.doubt = Some(Doubt {
                    latest: now,
                    steady: 0,
                    elapsed,
                });
                Look::Jumped(doubted)
            }
        }
    }

    /// Somebody says that the clock is right. A jump counts for 30 days at most: also a wrong word destroys nothing at
    /// once.
    pub(crate) fn confirm(&mut self, now: u64) {
        let passed = now.saturating_sub(self.last).min(CLOCK_JUMP_MS);
        self.believe(now, if self.last == 0 { 0 } else { passed });
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u64(self.last).u64(self.passed);
        match self.doubt {
            None => writer.bool(false),
            Some(doubt) => writer
                .bool(true)
                .u64(doubt.latest)
                .u64(doubt.steady)
                .u64(doubt.elapsed),
        };
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            last: reader.u64()?,
            passed: reader.u64()?,
            doubt: if reader.bool()? {
                Some(Doubt {
                    latest: reader.u64()?,
                    steady: reader.u64()?,
                    elapsed: reader.u64()?,
                })
            } else {
                None
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3_600 * 1_000;
    const YEAR: u64 = 365 * DAY;
    const BEGINNING: u64 = 56 * YEAR;

    fn begun() -> TrustedTime {
        let mut time = TrustedTime::default();
        assert_eq!(time.look(BEGINNING), Look::Believed);
        time
    }

    #[test]
    fn time_passes_as_the_clock_goes_and_not_when_it_steps_back() {
        let mut time = begun();
        for (day, passed) in [(1, 1), (31, 31), (30, 31), (32, 32), (62, 62)] {
            assert_eq!(time.look(BEGINNING + day * DAY), Look::Believed, "{day}");
            assert_eq!(time.passed(), passed * DAY, "{day}");
        }
    }

    #[test]
    fn a_clock_that_swings_to_and_fro_makes_no_time() {
        let mut time = begun();
        for _ in 0..100 {
            assert_eq!(time.look(BEGINNING + DAY), Look::Believed);
            assert_eq!(time.look(BEGINNING), Look::Believed);
        }
        assert_eq!(time.passed(), DAY);
        for _ in 0..100 {
            assert!(matches!(time.look(130 * YEAR), Look::Jumped(_)));
            assert!(matches!(time.look(0), Look::Jumped(_)));
        }
        assert_eq!(time.look(BEGINNING + 2 * DAY), Look::Believed);
        assert_eq!(time.passed(), 2 * DAY);
    }

    #[test]
    fn a_jump_is_doubted_until_the_clock_is_right_again() {
        for wrong in [
            0,
            1,
            BEGINNING - DAY - 1,
            BEGINNING + 30 * DAY + 1,
            130 * YEAR,
            u64::MAX,
        ] {
            let mut time = begun();
            let doubt = ClockInDoubt {
                last: BEGINNING,
                now: wrong,
            };
            assert_eq!(time.look(wrong), Look::Jumped(doubt));
            assert_eq!(time.look(wrong), Look::Doubted(doubt), "told once");
            assert_eq!(time.passed(), 0);
            assert_eq!(time.look(BEGINNING + DAY), Look::Believed);
            assert_eq!(time.passed(), DAY);
        }
    }

    #[test]
    fn a_confirmed_jump_counts_for_thirty_days_at_most() {
        for (now, passed) in [(BEGINNING + 40 * DAY, 30), (130 * YEAR, 30), (1, 0)] {
            let mut time = begun();
            time.look(now);
            time.confirm(now);
            assert_eq!(time.passed(), passed * DAY);
            assert_eq!(time.look(now + DAY), Look::Believed);
            assert_eq!(time.passed(), (passed + 1) * DAY);
        }
    }

    #[test]
    fn a_doubted_clock_that_runs_on_is_believed_after_thirty_days_and_its_jump_counts_for_nothing()
    {
        let mut time = begun();
        let there = 130 * YEAR;
        assert!(matches!(time.look(there), Look::Jumped(_)));
        for day in 1..30 {
            assert!(matches!(time.look(there + day * DAY), Look::Doubted(_)));
        }
        assert_eq!(time.passed(), 0);
        assert_eq!(time.look(there + 30 * DAY), Look::Believed);
        assert_eq!(time.passed(), 30 * DAY);
    }

    #[test]
    fn a_right_clock_is_known_again_also_after_a_long_time_on_a_wrong_one() {
        let mut time = begun();
        time.look(130 * YEAR);
        for day in 1..=25 {
            time.look(130 * YEAR + day * DAY);
        }
        assert_eq!(time.look(BEGINNING + 50 * DAY), Look::Believed);
        assert_eq!(time.passed(), 50 * DAY);
    }

    #[test]
    fn what_is_remembered_is_read_back() {
        let mut time = begun();
        time.look(BEGINNING + DAY);
        time.look(7);
        let mut writer = Writer::new(1, 0);
        time.write(&mut writer);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes, 1, "time").unwrap();
        assert_eq!(TrustedTime::read(&mut reader).unwrap(), time);
        reader.finish().unwrap();
    }
}
