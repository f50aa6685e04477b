//! Numbers as a reader of a chart is shown them: dates where their number format is one, otherwise as spreadsheets write
//! numbers. Percent signs, currencies and thousands separators of a format are not added.

/// Digits that a spreadsheet keeps of a number; what is beyond is noise of binary fractions.
const DIGITS: usize = 15;
/// Exponents of ten from which on numbers without a format are written with an exponent, and those with one.
const LARGE: (i32, i32) = (11, 21);
/// Exponents of ten down to which numbers are written without one, likewise.
const SMALL: (i32, i32) = (-4, -15);

/// Which day the days of a workbook are counted from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Calendar {
    #[default]
    From1900,
    From1904,
}

/// What a number format makes of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// None: as many digits as there are.
    #[default]
    General,
    /// Digits of the number itself.
    Digits,
    /// The day that a number stands for.
    Day,
    /// The day and the time.
    Time,
}

impl Format {
    /// That of a format code.
    pub fn of(code: &str) -> Self {
        match bare(code).as_str() {
            "" | "general" | "standard" => Format::General,
            bare if !is_date(bare) => Format::Digits,
            bare if bare.contains('h') => Format::Time,
            _ => Format::Day,
        }
    }

    /// A number as it is shown, or words that stand in the place of one.
    pub fn shown(self, words: String, calendar: Calendar) -> String {
        let Some(number) = words.trim().parse::<f64>().ok().filter(|number| number.is_finite()) else { return words };
        if matches!(self, Format::Day | Format::Time)
            && let Some(date) = date(number, calendar, self == Format::Time)
        {
            return date;
        }
        plain(number, self == Format::General)
    }
}

/// A number with 15 digits at most, with an exponent where it would be long without.
fn plain(number: f64, general: bool) -> String {
    let rounded = format!("{number:.*e}", DIGITS - 1);
    let Some((digits, exponent)) = rounded.split_once('e') else { return rounded };
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let within = |(of_general, of_others): (i32, i32)| if general { of_general } else { of_others };
    if digits == "0" || digits == "-0" {
        return "0".to_owned();
    }
    if (within(SMALL)..within(LARGE)).contains(&exponent) {
        return rounded.parse::<f64>().map_or_else(|_| rounded.clone(), |number| number.to_string());
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}E{sign}{:02}", exponent.abs())
}

/// The day of a number, and the minute when `timed`; None when it is none that a spreadsheet knows.
fn date(number: f64, calendar: Calendar, timed: bool) -> Option<String> {
    /// Minutes of a day.
    const MINUTES: u32 = 1_440;
    if !(0.0..2_958_466.0).contains(&number) {
        return None;
    }
    let mut minutes = if timed { (number.fract() * f64::from(MINUTES)).round() as u32 } else { 0 };
    let mut days = number as i32;
    if minutes == MINUTES {
        (minutes, days) = (0, days + 1);
    }
    let julian = match calendar {
        // 1900 has a 29 February there, which is day 60.
        Calendar::From1900 => 2_415_019 + days + i32::from(days < 60),
        Calendar::From1904 => 2_416_481 + days,
    };
    let date = time::Date::from_julian_day(julian).ok()?;
    Some(if timed { format!("{date} {:02}:{:02}", minutes / 60, minutes % 60) } else { date.to_string() })
}

/// The letters and signs of a number format that stand for something, in lower case: those of its first section, without
/// quoted text, brackets, escaped characters, spaces as wide as a character (`_x`) and fillings (`*x`).
fn bare(format: &str) -> String {
    let mut bare = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => drop(chars.find(|c| *c == '"')),
            '[' => drop(chars.find(|c| *c == ']')),
            '\\' | '_' | '*' => drop(chars.next()),
            ';' => break,
            c => bare.extend(c.to_lowercase()),
        }
    }
    bare.trim().to_owned()
}

/// True for formats that show a day, a month or a year and no digits of the number itself. Only letters of dates may
/// stand in them: `Standard`, which some programs write for `General`, has a `d` too.
fn is_date(bare: &str) -> bool {
    let bare = bare.replace("s.000", "s").replace("s.00", "s").replace("s.0", "s");
    (bare.contains(['d', 'y']) || bare.contains("mmm"))
        && !bare.contains(['0', '#', '?'])
        && bare.chars().all(|c| !c.is_ascii_alphabetic() || "ymdhsapegb".contains(c))
}

#[cfg(test)]
mod tests {
    use super::{Calendar, Format};

    fn shown(written: &str, format: &str, calendar: Calendar) -> String {
        Format::of(format).shown(written.to_owned(), calendar)
    }

    #[test]
    fn numbers_are_shown_as_in_the_chart() {
        for (written, format, expected) in [
            ("4.4000000000000004", "General", "4.4"),
            ("0.1", "0%", "0.1"),
            ("-0", "General", "0"),
            ("1E5", "General", "100000"),
            ("123456789012345678", "0", "123456789012346000"),
            ("99999999999", "General", "99999999999"),
            ("123456789012", "General", "1.23456789012E+11"),
            ("123456789012", "#,##0", "123456789012"),
            ("1.2E+300", "General", "1.2E+300"),
            ("1.23456789012345678e300", "0.00", "1.23456789012346E+300"),
            ("-2.5e-300", "0.00", "-2.5E-300"),
            ("0.0001", "General", "0.0001"),
            ("0.00001", "Standard", "1E-05"),
            ("1e999", "General", "1e999"),
            ("#N/A", "General", "#N/A"),
            ("Q1", "yyyy", "Q1"),
        ] {
            assert_eq!(shown(written, format, Calendar::From1900), expected, "{written} as {format}");
        }
    }

    #[test]
    fn dates_are_told_from_numbers() {
        for format in [
            "d\\-mmm\\-yy",
            "mmm",
            "MMMM",
            "yyyy",
            "[$-409]mmm\\-yy;@",
            "[$-F800]dddd, mmmm dd",
            "_(* yyyy_)",
            "m/d/yy;General",
            "yyyy\"年\"m\"月\"",
        ] {
            assert_eq!(shown("45292.75", format, Calendar::From1900), "2024-01-01", "{format}");
        }
        for format in [
            "General",
            "Standard",
            "[Red]0\" days\"",
            "0_d",
            "#,##0*y",
            "0\\d",
            "h:mm",
            "[h]:mm:ss",
            "mm:ss.0",
            "#,##0.00 [$USD-409]",
            "0 \"unclosed d",
            "[unclosed d",
            "0;yyyy",
            "",
        ] {
            assert_eq!(shown("45292", format, Calendar::From1900), "45292", "{format}");
        }
        for (written, format, expected) in [
            ("45292.75", "m/d/yyyy h:mm", "2024-01-01 18:00"),
            ("45292.999999", "d hh:mm:ss.00", "2024-01-02 00:00"),
            ("1", "d/m/yyyy", "1900-01-01"),
            ("61", "d/m/yyyy", "1900-03-01"),
            ("-1", "d/m/yyyy", "-1"),
            ("1.2E+300", "d/m/yyyy", "1.2E+300"),
        ] {
            assert_eq!(shown(written, format, Calendar::From1900), expected, "{written} as {format}");
        }
        assert_eq!(shown("43830", "dd/mm/yyyy", Calendar::From1904), "2024-01-01");
    }
}
