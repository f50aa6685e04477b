//! Pages that were scanned a few degrees askew, of which tesseract loses lines or everything: the angle is found by
//! projection profiles (Postl 1986) and undone before recognition. Quarter turns are not looked for here.

use image::{GrayImage, Luma};

/// Degrees on either side within which the angle is sought.
const RANGE: f32 = 10.0;
/// Degrees between the angles that are tried first, and then around the best of them.
const STEPS: [f32; 2] = [0.2, 0.05];
/// Degrees below which a page is straight enough.
const STRAIGHT: f32 = 0.4;
/// How far the sharpest profile must stand out from the usual one.
const DISTINCT: f64 = 1.25;
/// Longer side in pixels of the reduced image that is measured.
const SIDE: u32 = 1_000;
/// Difference of shade from one row to the next that is the lower edge of something.
const EDGE: i16 = 40;
/// Edges below which there is nothing to measure.
const FEW: usize = 200;

/// Degrees by which lines descend to the right, 0 for a page that is straight or has no lines.
pub(super) fn degrees(image: &GrayImage) -> f32 {
    let edges = lower_edges(image);
    if edges.len() < FEW {
        return 0.0;
    }
    let tried = (RANGE / STEPS[0]) as i32;
    let coarse: Vec<(f32, f64)> =
        (-tried..=tried).map(|n| n as f32 * STEPS[0]).map(|a| (a, sharpness(&edges, a))).collect();
    let best = sharpest(&coarse);
    let mut usual: Vec<f64> = coarse.iter().map(|(_, sharpness)| *sharpness).collect();
    usual.sort_by(f64::total_cmp);
    if best.1 < usual[usual.len() / 2] * DISTINCT || best.0.abs() > RANGE - 2.0 * STEPS[0] {
        return 0.0;
    }
    let around = (STEPS[0] / STEPS[1]) as i32;
    let fine: Vec<(f32, f64)> =
        (-around..=around).map(|n| best.0 + n as f32 * STEPS[1]).map(|a| (a, sharpness(&edges, a))).collect();
    let found = sharpest(&fine).0;
    if found.abs() < STRAIGHT { 0.0 } else { found }
}

/// The image turned so that lines that descended by `degrees` are level, on a canvas that holds all of it; the ground
/// is `ground`. Both have the same middle.
pub(super) fn straighten(image: &GrayImage, degrees: f32, ground: u8) -> GrayImage {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (width, height) = (image.width() as f32, image.height() as f32);
    let side = |a: f32, b: f32| (a * cos.abs() + b * sin.abs()).ceil() as u32;
    let (wide, high) = (side(width, height), side(height, width));
    GrayImage::from_fn(wide, high, |x, y| {
        let (x, y) = (x as f32 + 0.5 - wide as f32 / 2.0, y as f32 + 0.5 - high as f32 / 2.0);
        Luma([shade(image, x * cos - y * sin + width / 2.0 - 0.5, x * sin + y * cos + height / 2.0 - 0.5, ground)])
    })
}

/// The shade between four pixels.
fn shade(image: &GrayImage, x: f32, y: f32, ground: u8) -> u8 {
    let at = |x: f32, y: f32| {
        let inside = x >= 0.0 && y >= 0.0 && x < image.width() as f32 && y < image.height() as f32;
        f32::from(if inside { image.get_pixel(x as u32, y as u32).0[0] } else { ground })
    };
    let (left, top) = (x.floor(), y.floor());
    let (right_share, low_share) = (x - left, y - top);
    let row = |y: f32| at(left, y) * (1.0 - right_share) + at(left + 1.0, y) * right_share;
    (row(top) * (1.0 - low_share) + row(top + 1.0) * low_share).round() as u8
}

/// Places at which something dark ends downwards, in the reduced image.
fn lower_edges(image: &GrayImage) -> Vec<(f32, f32)> {
    let longer = image.width().max(image.height()).max(1);
    let reduced = |side: u32| (u64::from(side) * u64::from(SIDE.min(longer)) / u64::from(longer)).max(1) as u32;
    let small = image::imageops::thumbnail(image, reduced(image.width()), reduced(image.height()));
    let mut edges = Vec::new();
    for y in 1..small.height() {
        for x in 0..small.width() {
            let step = i16::from(small.get_pixel(x, y).0[0]) - i16::from(small.get_pixel(x, y - 1).0[0]);
            if step >= EDGE {
                edges.push((x as f32, y as f32));
            }
        }
    }
    edges
}

/// The sum of squares of a profile: the more the edges gather in few rows, the larger.
fn sharpness(edges: &[(f32, f32)], degrees: f32) -> f64 {
    let slope = degrees.to_radians().tan();
    // Rows reach from -SIDE to 2 SIDE within the range of angles.
    let mut rows = vec![0u32; 3 * SIDE as usize];
    for (x, y) in edges {
        let row = (y - x * slope + SIDE as f32) as usize;
        if let Some(row) = rows.get_mut(row) {
            *row += 1;
        }
    }
    rows.iter().map(|&row| f64::from(row) * f64::from(row)).sum()
}

fn sharpest(profiles: &[(f32, f64)]) -> (f32, f64) {
    profiles.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{degrees, straighten};
    use image::{GrayImage, Luma};

    /// A page of dashes on lines, as words are.
    fn page() -> GrayImage {
        GrayImage::from_fn(1_200, 1_600, |x, y| {
            let margin = !(100..1_100).contains(&x) || !(100..1_500).contains(&y);
            let ink = y % 40 < 14 && (x / 7 + y / 40 * 3) % 9 < 7 && (x + y / 40) % 3 != 0;
            Luma([if ink && !margin { 20 } else { 240 }])
        })
    }

    #[test]
    fn angles_are_found_and_undone() {
        let page = page();
        assert!(degrees(&page).abs() < f32::EPSILON);
        for askew in [-7.0, -3.0, -1.0, 2.0, 5.0, 8.0f32] {
            let turned = straighten(&page, -askew, 240);
            let found = degrees(&turned);
            assert!((found - askew).abs() < 0.15, "{askew}: {found}");
            assert!(degrees(&straighten(&turned, found, 240)).abs() < f32::EPSILON, "{askew}");
        }
    }

    #[test]
    fn pages_without_lines_are_left_alone() {
        let noise = GrayImage::from_fn(800, 800, |x, y| {
            Luma([(x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503) ^ (x * y)) as u8])
        });
        for picture in [GrayImage::from_pixel(800, 800, Luma([255])), noise] {
            assert!(degrees(&picture).abs() < f32::EPSILON);
        }
    }
}
