//! The samples as a picture.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::samples::{PROGRAMS, Record, ms};

const SIZE: (u32, u32) = (1000, 900);
const COLORS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(44, 160, 44), RGBColor(214, 39, 40), RGBColor(148, 103, 189)];
/// Latencies above this are drawn at the edge.
const LONGEST_MS: f64 = 200.0;

/// Over minutes: memory, descriptors, the pilot's latency, pictures and visitors. Times in which the link was not well
/// are grey.
pub fn svg(record: &Record) -> Result<String> {
    let mut text = String::new();
    draw(record, &mut text).map_err(|error| anyhow!("cannot draw the plot: {error}"))?;
    Ok(text)
}

fn draw(record: &Record, text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let panels = root.split_evenly((4, 1));
    let of_programs = |value: fn(&super::samples::Footprint) -> f64| {
        PROGRAMS.iter().enumerate().map(move |(which, name)| {
            let points = record
                .samples
                .iter()
                .filter_map(move |sample| Some((sample.at, sample.programs[which].as_ref().map(value)?)));
            (*name, points.collect())
        })
    };
    let of_pilot = |name, value: &dyn Fn(&super::samples::Sample) -> Option<f64>| {
        (name, record.samples.iter().filter_map(|sample| Some((sample.at, value(sample)?))).collect())
    };
    panel(&panels[0], record, "memory, MiB", of_programs(|p| p.resident_kb as f64 / 1024.0).collect())?;
    panel(&panels[1], record, "descriptors", of_programs(|p| p.files as f64).collect())?;
    let latency =
        |which: usize| move |sample: &super::samples::Sample| sample.latency.map(|l| ms(l[which]).min(LONGEST_MS));
    panel(
        &panels[2],
        record,
        "latency of the pilot's picture, ms",
        vec![of_pilot("p50", &latency(0)), of_pilot("p99", &latency(1))],
    )?;
    let pictures = of_pilot("pictures a second", &|sample| Some(sample.pictures as f64));
    let visitors = of_pilot("visitors", &|sample| Some(sample.visitors as f64));
    panel(&panels[3], record, "pictures and visitors", vec![pictures, visitors])?;
    root.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Curve = (&'static str, Vec<(std::time::Duration, f64)>);

fn panel(area: &Area<'_>, record: &Record, title: &str, curves: Vec<Curve>) -> Result<(), Box<dyn std::error::Error>> {
    let minutes = |at: std::time::Duration| at.as_secs_f64() / 60.0;
    let end = record.samples.last().map_or(1.0, |sample| minutes(sample.at));
    let highest = curves.iter().flat_map(|(_, points)| points).map(|(_, y)| *y).fold(1.0, f64::max) * 1.05;
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .caption(title, ("sans-serif", 14))
        .x_label_area_size(22)
        .y_label_area_size(44)
        .build_cartesian_2d(0.0..end, 0.0..highest)?;
    chart.draw_series(record.disturbances.iter().map(|disturbance| {
        let corners = [(minutes(disturbance.from), 0.0), (minutes(disturbance.to), highest)];
        Rectangle::new(corners, RGBColor(228, 228, 228).filled())
    }))?;
    chart.configure_mesh().disable_mesh().draw()?;
    for ((name, points), color) in curves.into_iter().zip(COLORS) {
        let line = points.into_iter().map(|(at, y)| (minutes(at), y));
        chart
            .draw_series(LineSeries::new(line, color.stroke_width(1)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::LowerLeft).background_style(WHITE.mix(0.8)).draw()?;
    Ok(())
}
