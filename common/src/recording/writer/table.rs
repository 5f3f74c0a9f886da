//! The table of times beside a file: its rows, and how it is written anew once pictures came late. What was measured
//! stands in the file alone: hours of it would take too much memory.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::sync::Arc;
use std::time::Duration;

use crate::capture_clock::Captured;
use crate::recording::folder::Output;
use crate::recording::name::rfc3339;
use crate::recording::telemetry::{Columns, Fields};

/// Written at once.
const PIECE: usize = 64 << 10;
/// Columns that are always there.
const OWN_COLUMNS: usize = 5;

pub(super) struct Row {
    pub time: Duration,
    pub captured: Option<Captured>,
    pub keyframe: bool,
    pub missing: u64,
    /// Of the table that was written first, from 1; 0: it came late, and stands in none.
    pub line: u32,
}

/// One that is to be written.
pub(super) struct NewRow {
    pub row: Row,
    /// What was measured then.
    pub fields: Option<Arc<Fields>>,
}

impl Row {
    /// `beside`: what was measured then, as it stands behind these.
    pub fn write(&self, number: u64, begun: Duration, beside: &str, out: &mut String) {
        let seconds = self.time.saturating_sub(begun).as_secs_f64();
        let captured = self.captured.map(rfc3339).unwrap_or_default();
        let (keyframe, missing) = (u8::from(self.keyframe), self.missing);
        // Into a string nothing fails.
        let _ = writeln!(out, "{number},{seconds:.6},{captured},{keyframe},{missing}{beside}");
    }
}

pub(super) fn head(columns: &Columns) -> String {
    format!("number,time_s,captured,keyframe,missing_before{}\n", columns.head())
}

/// These rows, with what was measured as it stands in the table `before`, of the same columns.
pub(super) fn rewrite(
    before: &mut dyn Read,
    new: &mut dyn Output,
    rows: &[Row],
    columns: &Columns,
    begun: Duration,
) -> io::Result<()> {
    let (mut before, mut text) = (BufReader::new(before), head(columns));
    // A name in it may have several lines.
    io::copy(&mut before.by_ref().take(text.len() as u64), &mut io::sink())?;
    let (mut line, mut at, late) = (String::new(), 0, columns.row(None));
    for (number, row) in (1..).zip(rows) {
        while at < row.line {
            line.clear();
            at += 1;
            if before.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let beside = if at == row.line && at > 0 { beside(&line) } else { &late };
        row.write(number, begun, beside, &mut text);
        if text.len() >= PIECE {
            new.append(text.as_bytes())?;
            text.clear();
        }
    }
    new.append(text.as_bytes())
}

/// From the comma on.
fn beside(line: &str) -> &str {
    let line = line.trim_end_matches('\n');
    line.match_indices(',').nth(OWN_COLUMNS - 1).map_or("", |(at, _)| &line[at..])
}
