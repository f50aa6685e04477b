//! Times by five fields, as crontab(5) writes them: minute, hour, day of the month, month, day of the week, in UTC.
//!
//! A field is `*`, a number, a range `a-b`, either with a step `/n`, or a list of those; months and days of the week also
//! by their first three letters; Sunday is 0 and 7. Where neither the day of the month nor that of the week begins with
//! `*`, one of them has to fit (POSIX). Not here: seconds, time zones, nicknames.

use time::{Date, Duration, OffsetDateTime, Time, UtcOffset};

/// Days looked through for the next time: 29 February comes after eight years at the latest.
const HORIZON_DAYS: u16 = 366 * 9;
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// When something is due: one bit for each value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Both the day of the month and that of the week are named: one of them has to fit.
    either_day: bool,
}

struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", first: 0, last: 59, names: &[] },
    Field { name: "hour", first: 0, last: 23, names: &[] },
    Field { name: "day of the month", first: 1, last: 31, names: &[] },
    Field { name: "month", first: 1, last: 12, names: &MONTHS },
    Field { name: "day of the week", first: 0, last: 7, names: &WEEKDAYS },
];

impl Cron {
    /// Reads five fields.
    ///
    /// # Errors
    /// One sentence that names the field, also for a time that never comes (30 February).
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = parts[..] else {
            let message = "five fields are expected (minute, hour, day of the month, month, day of the week)";
            return Err(format!("{message}, not {}", parts.len()));
        };
        let mut bits = [0; 5];
        for ((field, text), bits) in FIELDS.iter().zip([minute, hour, day, month, weekday]).zip(&mut bits) {
            *bits = field.parse(text)?;
        }
        let [minutes, hours, days, months, weekdays] = bits;
        // 7 is Sunday as well.
        let weekdays = (weekdays | weekdays >> 7) & 0x7f;
        let either_day = !day.starts_with('*') && !weekday.starts_with('*');
        let cron = Self { text: parts.join(" "), minutes, hours, days, months, weekdays, either_day };
        match cron.after(OffsetDateTime::UNIX_EPOCH) {
            Some(_) => Ok(cron),
            None => Err("this day never comes".to_owned()),
        }
    }

    /// The fields, one space apart.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first time after `moment`, to the minute; `None` past the end of the calendar.
    #[must_use]
    pub fn after(&self, moment: OffsetDateTime) -> Option<OffsetDateTime> {
        let moment = moment.to_offset(UtcOffset::UTC);
        let start = moment.replace_second(0).ok()?.replace_nanosecond(0).ok()?.checked_add(Duration::MINUTE)?;
        let (mut date, mut earliest) = (start.date(), start.time());
        for _ in 0..HORIZON_DAYS {
            if self.is_on(date)
                && let Some(time) = self.time_from(earliest)
            {
                return Some(date.with_time(time).assume_utc());
            }
            (date, earliest) = (date.next_day()?, Time::MIDNIGHT);
        }
        None
    }

    fn is_on(&self, date: Date) -> bool {
        let day = has(self.days, u32::from(date.day()));
        let weekday = has(self.weekdays, u32::from(date.weekday().number_days_from_sunday()));
        has(self.months, u32::from(u8::from(date.month())))
            && if self.either_day { day || weekday } else { day && weekday }
    }

    fn time_from(&self, earliest: Time) -> Option<Time> {
        let hours = (earliest.hour()..24).filter(|hour| has(self.hours, u32::from(*hour)));
        for hour in hours {
            let from = if hour == earliest.hour() { earliest.minute() } else { 0 };
            if let Some(minute) = (from..60).find(|minute| has(self.minutes, u32::from(*minute))) {
                return Time::from_hms(hour, minute, 0).ok();
            }
        }
        None
    }
}

fn has(bits: u64, value: u32) -> bool {
    bits & (1 << value) != 0
}

impl Field {
    fn parse(&self, text: &str) -> Result<u64, String> {
        let mut bits = 0;
        for item in text.split(',') {
            let (range, step) = match item.split_once('/') {
                Some((range, step)) => (range, Some(self.number(step, &[], 1, self.last)?)),
                None => (item, None),
            };
            let (from, to) = match range.split_once('-') {
                _ if range == "*" => (self.first, self.last),
                Some((from, to)) => (self.value(from)?, self.value(to)?),
                // `5/15` counts from there to the end, as cron does.
                None => (self.value(range)?, if step.is_some() { self.last } else { self.value(range)? }),
            };
            if from > to {
                return Err(format!("{}: `{range}` goes backwards", self.name));
            }
            for value in (from..=to).step_by(step.unwrap_or(1) as usize) {
                bits |= 1 << value;
            }
        }
        Ok(bits)
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        self.number(text, self.names, self.first, self.last)
    }

    fn number(&self, text: &str, names: &[&str], first: u32, last: u32) -> Result<u32, String> {
        let named = names.iter().position(|name| text.eq_ignore_ascii_case(name)).map(|at| at as u32 + self.first);
        let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number = named.or_else(|| digits.and_then(|digits| digits.parse().ok()));
        let within = number.filter(|number| (first..=last).contains(number));
        within.ok_or_else(|| format!("{}: `{text}` is not from {first} to {last}", self.name))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use time::format_description::well_known::Rfc3339;

    fn at(text: &str) -> OffsetDateTime {
        OffsetDateTime::parse(text, &Rfc3339).unwrap()
    }

    #[test]
    fn the_next_time_is_the_first_that_fits() {
        for (cron, from, next) in [
            ("30 2 * * *", "2026-01-31T02:29:59Z", "2026-01-31T02:30:00Z"),
            ("30 2 * * *", "2026-01-31T02:30:00Z", "2026-02-01T02:30:00Z"),
            ("*/15 * * * *", "2026-01-31T23:46:10Z", "2026-02-01T00:00:00Z"),
            ("5/20 9-17 * * mon-fri", "2026-11-27T17:45:00Z", "2026-11-30T09:05:00Z"),
            ("0 0 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"),
            ("0 12 * * 7", "2026-11-26T00:00:00Z", "2026-11-29T12:00:00Z"),
            ("0 12 * * SUN,0", "2026-11-26T00:00:00Z", "2026-11-29T12:00:00Z"),
            // One of the two days has to fit where both are named.
            ("0 0 13 * fri", "2026-11-26T00:00:00Z", "2026-11-27T00:00:00Z"),
            ("0 0 13 * fri", "2026-12-11T00:00:00Z", "2026-12-13T00:00:00Z"),
            // With a `*` first, both.
            ("0 0 */2 * fri", "2026-11-26T00:00:00Z", "2026-11-27T00:00:00Z"),
            ("0 0 */2 * fri", "2026-11-27T00:00:00Z", "2026-12-11T00:00:00Z"),
            ("59 23 31 dec *", "2026-12-31T23:59:00Z", "2027-12-31T23:59:00Z"),
            ("0 3 * * *", "2026-06-01T04:30:00+02:00", "2026-06-01T03:00:00Z"),
        ] {
            assert_eq!(Cron::parse(cron).unwrap().after(at(from)), Some(at(next)), "{cron} after {from}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_by_its_field() {
        for (cron, problem) in [
            ("* * * *", "five fields are expected (minute, hour, day of the month, month, day of the week), not 4"),
            ("60 * * * *", "minute: `60` is not from 0 to 59"),
            ("* 24 * * *", "hour: `24` is not from 0 to 23"),
            ("* * 0 * *", "day of the month: `0` is not from 1 to 31"),
            ("* * * foo *", "month: `foo` is not from 1 to 12"),
            ("* * * * 8", "day of the week: `8` is not from 0 to 7"),
            ("*/0 * * * *", "minute: `0` is not from 1 to 59"),
            ("5-1 * * * *", "minute: `5-1` goes backwards"),
            ("+5 * * * *", "minute: `+5` is not from 0 to 59"),
            ("1,,2 * * * *", "minute: `` is not from 0 to 59"),
            ("0 0 30 2 *", "this day never comes"),
        ] {
            assert_eq!(Cron::parse(cron).unwrap_err(), problem, "{cron}");
        }
    }

    proptest! {
        #[test]
        fn the_next_time_is_the_next_from_every_moment_before_it(
            minute in 0..60u32, step in 1..60u32, hour in 0..24u32, day in 1..29u32, month in 1..13u32, weekday in 0..7u32,
            pick in 0..6usize, start in 0..2_000_000_000i64,
        ) {
            let text = [
                format!("*/{step} * * * *"), format!("{minute} {hour} * * *"), format!("{minute} * {day} * {weekday}"),
                format!("{minute} {hour} * {month} {weekday}"), format!("{minute} {hour} {day} {month} *"),
                format!("{minute}/{step} {hour}-23 * * *"),
            ];
            let cron = Cron::parse(&text[pick]).unwrap();
            let moment = OffsetDateTime::from_unix_timestamp(start).unwrap();
            let next = cron.after(moment).unwrap();
            prop_assert!(next > moment && next.second() == 0);
            // From any moment between, it is the next as well.
            let between = moment + (next - moment) * f64::from(minute) / 60.0;
            prop_assert_eq!(cron.after(between), Some(next));
        }
    }
}
