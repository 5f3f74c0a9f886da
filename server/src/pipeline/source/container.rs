//! Which container a file is. Pure.

/// A container that `--file-passthrough` can take apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    Mp4,
    Matroska,
    MpegTs,
    AnnexB,
}

/// The container by its first bytes.
pub fn sniff(head: &[u8]) -> Option<Container> {
    let byte = |at: usize| head.get(at).copied();
    if [&b"ftyp"[..], b"moov", b"mdat", b"wide", b"free", b"skip"].contains(&head.get(4..8).unwrap_or_default()) {
        Some(Container::Mp4)
    } else if head.starts_with(&[0x1a, 0x45, 0xdf, 0xa3]) {
        Some(Container::Matroska)
    } else if head.starts_with(&[0, 0, 1]) || head.starts_with(&[0, 0, 0, 1]) {
        // A pack header (0xba) or video sequence (0xb3) starts likewise: those are MPEG-1/2, whose forbidden_zero_bit
        // is set.
        let header = if head[2] == 1 { byte(3) } else { byte(4) };
        header.filter(|header| header & 0x80 == 0).map(|_| Container::AnnexB)
    } else if (byte(0) == Some(0x47) && byte(188) == Some(0x47)) || (byte(4) == Some(0x47) && byte(196) == Some(0x47)) {
        // The second form is M2TS: four bytes of arrival time before each packet.
        Some(Container::MpegTs)
    } else {
        None
    }
}
