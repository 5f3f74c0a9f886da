//! What minifb does not know of the desktop: the window's class and icon, quick clicks, a screen that stays awake, and
//! what stands in the corner. Under X11, by a connection of our own; nothing here waits for the X server but the
//! opening.
//!
//! The corner is a small window in the corner of minifb's, which the X server keeps above the pictures: it is drawn
//! when its text changes, and costs the pictures nothing. What is written over the picture is another one.

use std::time::{Duration, Instant};

#[cfg(not(all(unix, not(target_os = "macos"))))]
pub use self::elsewhere::Desktop;
#[cfg(all(unix, not(target_os = "macos")))]
pub use self::x11::Desktop;

/// For desktops and their `.desktop` files.
pub const CLASS: &str = "rov-client";
/// Two clicks within this time, and so near to each other, are a double click.
const DOUBLE_CLICK: Duration = Duration::from_millis(400);
const DOUBLE_CLICK_PIXELS: i32 = 8;

/// A press of a mouse button.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Click {
    /// In pixels from the window's upper left corner.
    pub at: (i32, i32),
    pub button: Button,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Button {
    Left,
    /// The second of two presses of the left one.
    LeftTwice,
    Middle,
    Right,
}

/// Tells double clicks.
#[derive(Debug, Default)]
struct Clicks {
    /// Time and place of the last one that may be the first of two.
    last: Option<(Duration, (i32, i32))>,
}

impl Clicks {
    /// `time` is of any clock that only goes on.
    fn press(&mut self, time: Duration, at: (i32, i32)) -> Click {
        let near = |(x, y): (i32, i32)| (x - at.0).abs().max((y - at.1).abs()) <= DOUBLE_CLICK_PIXELS;
        let double = self.last.take().is_some_and(|(before, place)| {
            time.checked_sub(before).is_some_and(|pause| pause <= DOUBLE_CLICK) && near(place)
        });
        if !double {
            self.last = Some((time, at));
        }
        Click { at, button: if double { Button::LeftTwice } else { Button::Left } }
    }
}

/// The icon, as in `favicon.svg`: a ring and a dot in it, 0xAARRGGBB, of this width and height.
fn icon(side: u32) -> Vec<u32> {
    let scale = side as f32 / 32.0;
    // How much of a pixel is inside of an edge at this distance, in the units of the drawing.
    let inside = |distance: f32| (0.5 - distance * scale).clamp(0.0, 1.0);
    let pixel = |at: u32| {
        let place = |at: u32| (at as f32 + 0.5) / scale - 16.0;
        let (x, y) = (place(at % side), place(at / side));
        let radius = x.hypot(y);
        let (dx, dy) = (x.abs() - 9.0, y.abs() - 9.0);
        let corner = dx.max(0.0).hypot(dy.max(0.0)) + dx.max(dy).min(0.0) - 7.0;
        let layers = [((radius - 9.5).abs() - 1.25, [0xf2, 0xf5, 0xf7]), (radius - 4.5, [0x3d, 0xd6, 0x8c])];
        let color = layers.iter().fold([0x0a_u8, 0x0f, 0x14].map(f32::from), |below, (distance, over)| {
            let part = inside(*distance);
            std::array::from_fn(|channel| below[channel] * (1.0 - part) + f32::from(over[channel] as u8) * part)
        });
        let [red, green, blue] = color.map(|channel| channel.round() as u32);
        ((inside(corner) * 255.0).round() as u32) << 24 | red << 16 | green << 8 | blue
    };
    (0..side * side).map(pixel).collect()
}

#[cfg(all(unix, not(target_os = "macos")))]
mod x11 {
    use raw_window_handle::{HasWindowHandle, RawWindowHandle};
    use rov_common::units::Resolution;
    use x11rb::connection::{Connection, RequestConnection};
    use x11rb::errors::ReplyError;
    use x11rb::protocol::Event;
    use x11rb::protocol::screensaver;
    use x11rb::protocol::xproto::{
        AtomEnum, ChangeWindowAttributesAux, ConfigureWindowAux, ConnectionExt, CreateGCAux, CreateWindowAux,
        EventMask, Gravity, ImageFormat, ImageOrder, PropMode, ScreenSaver, StackMode, Window, WindowClass,
    };
    use x11rb::rust_connection::RustConnection;
    use x11rb::wrapper::ConnectionExt as _;

    use super::{Button, CLASS, Click, Clicks, Duration, Instant, icon};

    const ICON_SIDE: u32 = 64;
    /// Screen savers that only look at how long nobody did anything are told that somebody did.
    const STIR: Duration = Duration::from_secs(30);
    /// OpenGL's own window may come to lie above ours.
    const RAISE: Duration = Duration::from_millis(500);
    const FIRST_BUTTON: u8 = 1;
    const MIDDLE_BUTTON: u8 = 2;
    const RIGHT_BUTTON: u8 = 3;

    #[derive(Debug)]
    pub struct Desktop {
        connection: RustConnection,
        /// In front of everything, without a look of its own, for the clicks. minifb forgets one that is released
        /// before it looks, and X gives those into a window to one program alone.
        glass: Window,
        corner: Window,
        written: Window,
        /// Bits of a pixel that count. minifb opens windows of 32 bits a pixel alone.
        depth: u8,
        clicks: Clicks,
        can_suspend: bool,
        awake: bool,
        stirred: Option<Instant>,
        raised: Option<Instant>,
    }

    impl Desktop {
        /// The error is for the log.
        pub fn open(window: &minifb::Window) -> Result<Self, String> {
            let handle = window.window_handle().map_err(|error| error.to_string())?;
            let RawWindowHandle::Xlib(handle) = handle.as_raw() else { return Err("it is not X11's".to_owned()) };
            let window = Window::try_from(handle.window).map_err(|error| error.to_string())?;
            let (connection, _) = x11rb::connect(None).map_err(|error| error.to_string())?;
            Self::prepare(connection, window).map_err(|error| error.to_string())
        }

        fn prepare(connection: RustConnection, window: Window) -> Result<Self, ReplyError> {
            let class = format!("{CLASS}\0{CLASS}\0");
            let replace = PropMode::REPLACE;
            connection.change_property8(replace, window, AtomEnum::WM_CLASS, AtomEnum::STRING, class.as_bytes())?;
            let icon: Vec<u32> = [ICON_SIDE, ICON_SIDE].into_iter().chain(icon(ICON_SIDE)).collect();
            let property = connection.intern_atom(false, b"_NET_WM_ICON")?.reply()?.atom;
            connection.change_property32(replace, window, property, AtomEnum::CARDINAL, &icon)?;
            let clicks = CreateWindowAux::new().event_mask(EventMask::BUTTON_PRESS);
            let glass = connection.generate_id().map_err(into_reply_error)?;
            let size = i16::MAX as u16;
            connection.create_window(0, glass, window, 0, 0, size, size, 0, WindowClass::INPUT_ONLY, 0, &clicks)?;
            connection.map_window(glass)?;
            // It keeps its place in the corner when the window's size changes, without us.
            let corner = connection.generate_id().map_err(into_reply_error)?;
            let place = clicks.win_gravity(Gravity::NORTH_EAST);
            connection.create_window(0, corner, window, 0, 0, 1, 1, 0, WindowClass::INPUT_OUTPUT, 0, &place)?;
            let written = connection.generate_id().map_err(into_reply_error)?;
            let place = place.win_gravity(Gravity::NORTH_WEST);
            connection.create_window(0, written, window, 0, 0, 1, 1, 0, WindowClass::INPUT_OUTPUT, 0, &place)?;
            let depth = connection.get_geometry(window)?.reply()?.depth;
            let can_suspend = connection.extension_information(screensaver::X11_EXTENSION_NAME)?.is_some();
            if can_suspend {
                // Before version 1.1 there is no Suspend; the refusal is ignored.
                screensaver::query_version(&connection, 1, 1)?.reply()?;
            }
            connection.flush()?;
            Ok(Self {
                connection,
                glass,
                corner,
                written,
                depth,
                clicks: Clicks::default(),
                can_suspend,
                awake: false,
                stirred: None,
                raised: None,
            })
        }

        /// What was clicked since the last call. To be called often, also because it reads what the X server says.
        pub fn clicks(&mut self, _: &minifb::Window, now: Instant) -> Vec<Click> {
            let mut clicks = Vec::new();
            // The end of the connection is noticed by minifb, which shares the server.
            while let Ok(Some(event)) = self.connection.poll_for_event() {
                let Event::ButtonPress(press) = event else { continue };
                let at = (i32::from(press.event_x), i32::from(press.event_y));
                match press.detail {
                    FIRST_BUTTON => {
                        clicks.push(self.clicks.press(Duration::from_millis(u64::from(press.time)), at));
                    }
                    MIDDLE_BUTTON => clicks.push(Click { at, button: Button::Middle }),
                    RIGHT_BUTTON => clicks.push(Click { at, button: Button::Right }),
                    _ => {}
                }
            }
            if self.raised.is_none_or(|at| now.saturating_duration_since(at) >= RAISE) {
                self.raised = Some(now);
                let above = ConfigureWindowAux::new().stack_mode(StackMode::ABOVE);
                for window in [self.written, self.corner, self.glass] {
                    let _ = self.connection.configure_window(window, &above);
                }
                let _ = self.connection.flush();
            }
            clicks
        }

        /// Whether the screen shall stay on; to be called again and again.
        pub fn keep_awake(&mut self, on: bool, now: Instant) {
            if self.awake != on && self.can_suspend {
                let _ = screensaver::suspend(&self.connection, u32::from(on));
            }
            self.awake = on;
            if on && self.stirred.is_none_or(|at| now.saturating_duration_since(at) >= STIR) {
                self.stirred = Some(now);
                let _ = self.connection.force_screen_saver(ScreenSaver::RESET);
            }
            let _ = self.connection.flush();
        }

        /// Shows these pixels 0x00RRGGBB in the upper right corner of the window, which has this width; none: takes
        /// them away. False where that cannot be done.
        pub fn show_corner(&mut self, picture: Option<(&[u32], Resolution)>, width: u32) -> bool {
            let left = picture.map_or(0, |(_, size)| width as i32 - size.width as i32);
            self.show(self.corner, picture, (left, 0))
        }

        /// Likewise, with the upper left corner at this place.
        pub fn show_written(&mut self, picture: Option<(&[u32], Resolution)>, place: (i32, i32)) -> bool {
            self.show(self.written, picture, place)
        }

        fn show(&self, window: Window, picture: Option<(&[u32], Resolution)>, place: (i32, i32)) -> bool {
            let shown = match picture {
                Some((pixels, size)) => self.paint(window, pixels, size, place),
                None => self.connection.unmap_window(window).map(drop).map_err(ReplyError::from),
            };
            shown.and_then(|()| Ok(self.connection.flush()?)).is_ok()
        }

        fn paint(
            &self,
            window: Window,
            pixels: &[u32],
            size: Resolution,
            (x, y): (i32, i32),
        ) -> Result<(), ReplyError> {
            let connection = &self.connection;
            let bytes: Vec<u8> = match connection.setup().image_byte_order {
                ImageOrder::MSB_FIRST => pixels.iter().flat_map(|pixel| pixel.to_be_bytes()).collect(),
                _ => pixels.iter().flat_map(|pixel| pixel.to_le_bytes()).collect(),
            };
            let (w, h) = (size.width as u16, size.height as u16);
            let pixmap = connection.generate_id().map_err(into_reply_error)?;
            connection.create_pixmap(self.depth, pixmap, window, w, h)?;
            let gc = connection.generate_id().map_err(into_reply_error)?;
            connection.create_gc(gc, pixmap, &CreateGCAux::new())?;
            connection.put_image(ImageFormat::Z_PIXMAP, pixmap, gc, w, h, 0, 0, 0, self.depth, &bytes)?;
            connection.free_gc(gc)?;
            // As its background the X server draws it by itself, whenever something was in front of it.
            let look = ChangeWindowAttributesAux::new().background_pixmap(pixmap);
            connection.change_window_attributes(window, &look)?;
            connection.free_pixmap(pixmap)?;
            let place = ConfigureWindowAux::new().x(x).y(y).width(size.width).height(size.height);
            connection.configure_window(window, &place)?;
            connection.map_window(window)?;
            connection.clear_area(false, window, 0, 0, 0, 0)?;
            Ok(())
        }
    }

    fn into_reply_error(error: x11rb::errors::ReplyOrIdError) -> ReplyError {
        match error {
            x11rb::errors::ReplyOrIdError::ConnectionError(error) => error.into(),
            x11rb::errors::ReplyOrIdError::X11Error(error) => error.into(),
            x11rb::errors::ReplyOrIdError::IdsExhausted => x11rb::errors::ConnectionError::UnknownError.into(),
        }
    }
}

#[cfg(not(all(unix, not(target_os = "macos"))))]
mod elsewhere {
    use minifb::{MouseButton, MouseMode};
    use rov_common::units::Resolution;

    use super::{Button, Click, Clicks, Duration, Instant};

    /// What minifb knows by itself: clicks.
    #[derive(Debug)]
    pub struct Desktop {
        clicks: Clicks,
        begun: Instant,
        down: [bool; 3],
    }

    impl Desktop {
        pub fn open(_: &minifb::Window) -> Result<Self, String> {
            Ok(Self { clicks: Clicks::default(), begun: Instant::now(), down: [false; 3] })
        }

        pub fn clicks(&mut self, window: &minifb::Window, now: Instant) -> Vec<Click> {
            let buttons = [MouseButton::Left, MouseButton::Middle, MouseButton::Right];
            let now_down = buttons.map(|button| window.get_mouse_down(button));
            let before = std::mem::replace(&mut self.down, now_down);
            let Some((x, y)) = window.get_mouse_pos(MouseMode::Discard) else { return Vec::new() };
            let (time, at) = (now.saturating_duration_since(self.begun), (x as i32, y as i32));
            let first = (now_down[0] && !before[0]).then(|| self.clicks.press(time, at));
            let others = [(1, Button::Middle), (2, Button::Right)];
            let others = others.into_iter().filter(|(index, _)| now_down[*index] && !before[*index]);
            first.into_iter().chain(others.map(|(_, button)| Click { at, button })).collect()
        }

        pub fn keep_awake(&mut self, _: bool, _: Instant) {}

        pub fn show_corner(&mut self, _: Option<(&[u32], Resolution)>, _: u32) -> bool {
            false
        }

        pub fn show_written(&mut self, _: Option<(&[u32], Resolution)>, _: (i32, i32)) -> bool {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clicks_near_to_each_other_are_a_double_click_and_a_third_is_not() {
        let mut clicks = Clicks::default();
        let ms = Duration::from_millis;
        let doubles = [
            (0, (10, 10), false),
            (200, (12, 9), true),
            (300, (12, 9), false),
            (1000, (12, 9), false),
            (1100, (40, 9), false),
            (1200, (40, 9), true),
            (0, (40, 9), false),
        ];
        for (time, at, double) in doubles {
            let button = if double { Button::LeftTwice } else { Button::Left };
            assert_eq!(clicks.press(ms(time), at), Click { at, button }, "{time}");
        }
    }

    #[test]
    fn the_icon_is_a_ring_and_a_dot_on_a_tile_with_round_corners() {
        let icon = icon(64);
        let at = |x: usize, y: usize| icon[y * 64 + x];
        assert_eq!((at(0, 0) >> 24, at(32, 1)), (0, 0xff_0a_0f_14));
        assert_eq!((at(32, 32), at(32, 13), at(32, 20)), (0xff_3d_d6_8c, 0xff_f2_f5_f7, 0xff_0a_0f_14));
    }
}
