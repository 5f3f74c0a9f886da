//! Full screen, which minifb does not know. Under X11 the window manager is asked for it (EWMH `_NET_WM_STATE`),
//! through a connection of our own; without a window manager the window is given the size of the screen.

#[cfg(all(unix, not(target_os = "macos")))]
pub use x11::Fullscreen;

#[cfg(not(all(unix, not(target_os = "macos"))))]
pub use elsewhere::Fullscreen;

#[cfg(all(unix, not(target_os = "macos")))]
mod x11 {
    use raw_window_handle::{HasWindowHandle, RawWindowHandle};
    use x11rb::connection::Connection;
    use x11rb::errors::{ConnectError, ConnectionError, ReplyError};
    use x11rb::protocol::xproto::{AtomEnum, ClientMessageEvent, ConfigureWindowAux, ConnectionExt, EventMask, Window};
    use x11rb::rust_connection::RustConnection;

    /// Whether the window is full screen, and what it was before.
    #[derive(Debug, Default)]
    pub struct Fullscreen {
        on: bool,
        /// Position and size to go back to, where there is no window manager to remember them.
        before: Option<ConfigureWindowAux>,
    }

    impl Fullscreen {
        /// Switches; the error is for the log.
        pub fn toggle(&mut self, window: &minifb::Window) -> Result<(), String> {
            let handle = window.window_handle().map_err(|error| error.to_string())?;
            let RawWindowHandle::Xlib(handle) = handle.as_raw() else {
                return Err("that needs X11; start with WAYLAND_DISPLAY unset to use XWayland".to_owned());
            };
            let id = Window::try_from(handle.window).map_err(|error| error.to_string())?;
            self.ask(id, !self.on).map_err(|error| error.to_string())?;
            self.on = !self.on;
            Ok(())
        }

        fn ask(&mut self, window: Window, on: bool) -> Result<(), Error> {
            let (connection, screen) = x11rb::connect(None)?;
            let screen = connection.setup().roots.get(screen).ok_or(Error::NoScreen)?;
            if has_window_manager(&connection, screen.root)? {
                let state = atom(&connection, "_NET_WM_STATE")?;
                let fullscreen = atom(&connection, "_NET_WM_STATE_FULLSCREEN")?;
                // EWMH: 1 adds and 0 removes; the last but one says that an application asks.
                let event = ClientMessageEvent::new(32, window, state, [u32::from(on), fullscreen, 0, 1, 0]);
                let mask = EventMask::SUBSTRUCTURE_REDIRECT | EventMask::SUBSTRUCTURE_NOTIFY;
                connection.send_event(false, screen.root, mask, event)?.check()?;
            } else if on {
                let now = connection.get_geometry(window)?.reply()?;
                let place = |x: i16, y: i16, width: u16, height: u16| {
                    ConfigureWindowAux::new()
                        .x(i32::from(x))
                        .y(i32::from(y))
                        .width(u32::from(width))
                        .height(u32::from(height))
                };
                self.before = Some(place(now.x, now.y, now.width, now.height));
                let whole = place(0, 0, screen.width_in_pixels, screen.height_in_pixels);
                connection.configure_window(window, &whole)?.check()?;
            } else if let Some(before) = self.before.take() {
                connection.configure_window(window, &before)?.check()?;
            }
            Ok(())
        }
    }

    /// EWMH: a window manager that can be asked names its own window at the root.
    fn has_window_manager(connection: &RustConnection, root: Window) -> Result<bool, Error> {
        let check = atom(connection, "_NET_SUPPORTING_WM_CHECK")?;
        let reply = connection.get_property(false, root, check, AtomEnum::WINDOW, 0, 1)?.reply()?;
        Ok(reply.value_len > 0)
    }

    fn atom(connection: &RustConnection, name: &str) -> Result<u32, Error> {
        Ok(connection.intern_atom(false, name.as_bytes())?.reply()?.atom)
    }

    #[derive(Debug, thiserror::Error)]
    enum Error {
        #[error("cannot connect to the X server: {0}")]
        Connect(#[from] ConnectError),
        #[error("lost the X server: {0}")]
        Connection(#[from] ConnectionError),
        #[error("the X server refuses: {0}")]
        Reply(#[from] ReplyError),
        #[error("the X server has no screen")]
        NoScreen,
    }
}

#[cfg(not(all(unix, not(target_os = "macos"))))]
mod elsewhere {
    /// Not there: minifb has no full screen of its own.
    #[derive(Debug, Default)]
    pub struct Fullscreen;

    impl Fullscreen {
        pub fn toggle(&mut self, _: &minifb::Window) -> Result<(), String> {
            Err("that works under X11 only; use the window's own button".to_owned())
        }
    }
}
