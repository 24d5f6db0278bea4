//! HTTP dates (RFC 9110 section 5.6.7): written in one form, read in three.
//! Goal: seconds since 1970 on our side of the wire, nothing that depends on a clock or a time zone.
//! Costs: a dozen divisions either way; callers keep the formatted Date for a second.

/// The date as IMF-fixdate, `Sun, 06 Nov 1994 08:49:37 GMT`; `secs` since 1970, at most the year 9999.
pub fn format(secs: u64) -> [u8; 29] {
    let secs = secs.min(MAX_SECS);
    let (days, second) = (secs / DAY, secs % DAY);
    let (year, month, day) = civil(days);
    let mut out = *b"Thu, 00 Jan 0000 00:00:00 GMT";
    out[..3].copy_from_slice(&WEEKDAYS[(days + 4) as usize % 7].as_bytes()[..3]);
    out[8..11].copy_from_slice(MONTHS[month as usize - 1]);
    for (at, value) in [(5, day), (12, year / 100), (14, year % 100), (17, second / 3600)] {
        two_digits(&mut out, at, value);
    }
    two_digits(&mut out, 20, second / 60 % 60);
    two_digits(&mut out, 23, second % 60);
    out
}

/// Seconds since 1970 of a date in any of the three forms; `None` if it is none.
///
/// `now`, in the same seconds, decides the century of RFC 850's two-digit years: one that would lie more than 50 years
/// ahead is in the past. Dates before 1970 read as 0. The weekday must be one, not the right one; second 60 is allowed.
pub fn parse(date: &[u8], now: u64) -> Option<u64> {
    imf_fixdate(date).or_else(|| rfc850(date, now)).or_else(|| asctime(date))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(date: &[u8]) -> Option<u64> {
    let date: &[u8; 29] = date.try_into().ok()?;
    let shape = is_weekday_start(&date[..3]) && date[3..5] == *b", " && date[7] == b' ' && date[11] == b' ';
    if !shape || date[16] != b' ' || date[25..] != *b" GMT" {
        return None;
    }
    let year = number(&date[12..14])? * 100 + number(&date[14..16])?;
    seconds(year, month(&date[8..11])?, number(&date[5..7])?, clock(&date[17..25])?)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(date: &[u8], now: u64) -> Option<u64> {
    let (weekday, rest) = date.split_at_checked(date.len().checked_sub(RFC850_TAIL)?)?;
    let is_weekday = WEEKDAYS.iter().any(|name| name.as_bytes() == weekday);
    let shape = is_weekday && rest[..2] == *b", " && rest[4] == b'-' && rest[8] == b'-' && rest[11] == b' ';
    if !shape || rest[20..] != *b" GMT" {
        return None;
    }
    let (this_year, ..) = civil(now.min(MAX_SECS) / DAY);
    let in_this_century = this_year / 100 * 100 + number(&rest[9..11])?;
    let year = if in_this_century > this_year + 50 { in_this_century - 100 } else { in_this_century };
    seconds(year, month(&rest[5..8])?, number(&rest[2..4])?, clock(&rest[12..20])?)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(date: &[u8]) -> Option<u64> {
    let date: &[u8; 24] = date.try_into().ok()?;
    let shape = is_weekday_start(&date[..3]) && [3, 7, 10, 19].iter().all(|&at| date[at] == b' ');
    if !shape {
        return None;
    }
    let day = if date[8] == b' ' { number(&date[9..10])? } else { number(&date[8..10])? };
    let year = number(&date[20..22])? * 100 + number(&date[22..24])?;
    seconds(year, month(&date[4..7])?, day, clock(&date[11..19])?)
}

/// Seconds since 1970 of a day and a second in it; `None` for a day its month does not have.
fn seconds(year: u64, month: u64, day: u64, second: u64) -> Option<u64> {
    if day == 0 || day > days_in(year, month) {
        return None;
    }
    Some(days_since_1970(year, month, day).map_or(0, |days| days * DAY + second))
}

/// `08:49:37` as a second of the day.
fn clock(text: &[u8]) -> Option<u64> {
    let (hour, minute, second) = (number(&text[..2])?, number(&text[3..5])?, number(&text[6..])?);
    let right = text[2] == b':' && text[5] == b':' && hour < 24 && minute < 60 && second <= 60;
    right.then_some(hour * 3600 + minute * 60 + second)
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, b| b.is_ascii_digit().then(|| sum * 10 + u64::from(b - b'0')))
}

fn month(name: &[u8]) -> Option<u64> {
    MONTHS.iter().position(|month| *month == name).map(|at| at as u64 + 1)
}

fn is_weekday_start(name: &[u8]) -> bool {
    WEEKDAYS.iter().any(|weekday| weekday.as_bytes()[..3] == *name)
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// Year, month and day of a day since 1970. Years are counted from March, so that the leap day is the last
/// (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let from_march_0 = days + MARCH_0_TO_1970;
    let (era, day_of_era) = (from_march_0 / ERA, from_march_0 % ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil`]; `None` before 1970.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, from_march) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * ERA + day_of_era).checked_sub(MARCH_0_TO_1970)
}

fn two_digits(out: &mut [u8; 29], at: usize, value: u64) {
    out[at] = b'0' + (value / 10) as u8;
    out[at + 1] = b'0' + (value % 10) as u8;
}

const DAY: u64 = 86_400;
/// Days of 400 years: the calendar's whole period.
const ERA: u64 = 146_097;
/// Days from 1 March of the year 0 to 1970.
const MARCH_0_TO_1970: u64 = 719_468;
/// The last second of the year 9999: IMF-fixdate has four digits.
const MAX_SECS: u64 = 253_402_300_799;
/// Bytes behind the weekday in RFC 850's form.
const RFC850_TAIL: usize = ", 06-Nov-94 08:49:37 GMT".len();
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The date of RFC 9110's examples.
    const EXAMPLE: u64 = 784_111_777;

    fn read(date: &str) -> Option<u64> {
        parse(date.as_bytes(), 1_700_000_000)
    }

    #[test]
    fn the_three_forms_of_the_rfc_are_one_date() {
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(EXAMPLE));
        assert_eq!(read("Sunday, 06-Nov-94 08:49:37 GMT"), Some(EXAMPLE));
        assert_eq!(read("Sun Nov  6 08:49:37 1994"), Some(EXAMPLE));
        assert_eq!(&format(EXAMPLE), b"Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn known_days_are_written_right() {
        for (secs, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (MAX_SECS, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(std::str::from_utf8(&format(secs)).unwrap(), text);
        }
    }

    #[test]
    fn two_digit_years_are_at_most_fifty_ahead() {
        let in_2023 = 1_700_000_000;
        let year = |two: u32, now| {
            civil(parse(format!("Monday, 02-Jan-{two:02} 00:00:00 GMT").as_bytes(), now).unwrap() / DAY).0
        };
        assert_eq!(year(73, in_2023), 2073);
        assert_eq!(year(74, in_2023), 1974);
        assert_eq!(year(23, in_2023), 2023);
        assert_eq!(year(99, 946_684_799), 1999);
        assert_eq!(year(99, u64::MAX), 9999);
    }

    #[test]
    fn days_and_times_that_do_not_exist_are_refused() {
        for date in [
            "",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 29 Feb 2023 08:49:37 GMT",
            "Sun, 29 Feb 2100 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 06 Nov 1994 08-49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT ",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun,006 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-94 08:49:37 GMT",
            "Sunday, 06-Nov-1994 08:49:37 GMT",
            "Sunday, 06 Nov 94 08:49:37 GMT",
            "Sun Nov 06 08:49:37  994",
            "Sun Nov   6 08:49:37 1994",
            "Sun Nov 31 08:49:37 1994",
            "Someday, 06-Nov-94 08:49:37 GMT",
            "784111777",
            "Sun, 06 Nov 1994 08:49:3\u{663} GMT",
        ] {
            assert_eq!(read(date), None, "{date:?}");
        }
    }

    #[test]
    fn odd_but_real_dates_are_read() {
        assert_eq!(read("Thu, 01 Jan 1960 00:00:00 GMT"), Some(0));
        assert_eq!(read("Sat, 01 Jan 0000 00:00:00 GMT"), Some(0));
        assert_eq!(read("Sat, 31 Dec 2016 23:59:60 GMT"), Some(1_483_228_800));
        assert_eq!(read("Sun Nov 06 08:49:37 1994"), Some(EXAMPLE));
        assert_eq!(read("Mon, 06 Nov 1994 08:49:37 GMT"), Some(EXAMPLE));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(secs in 0..=MAX_SECS) {
            prop_assert_eq!(parse(&format(secs), 0), Some(secs));
        }

        #[test]
        fn consecutive_days_follow_the_calendar(day in 0..MAX_SECS / DAY) {
            let ((year, month, today), next) = (civil(day), civil(day + 1));
            let expected = match (month, today) {
                (12, 31) => (year + 1, 1, 1),
                _ if today == days_in(year, month) => (year, month + 1, 1),
                _ => (year, month, today + 1),
            };
            prop_assert_eq!(next, expected);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, now: u64) {
            parse(&bytes, now);
        }
    }
}
