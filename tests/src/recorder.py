"""A recorder by onvif-zeep: recorder.py HOST PORT USER PASSWORD digest|clear. Prints what it found as JSON."""

import datetime
import json
import sys

from onvif import ONVIFCamera, ONVIFError

host, port, user, password, secret = sys.argv[1:]
camera = ONVIFCamera(host, int(port), user, password, encrypt=secret == "digest")
device, media = camera.devicemgmt, camera.create_media_service()
pull, events = camera.create_pullpoint_service(), camera.create_events_service()
for service in (device, media, pull, events):
    # It forgives what the schema does not allow, unless it is told not to.
    service.zeep_client.settings.strict = True

found = {
    "information": dict(device.to_dict(device.GetDeviceInformation())),
    "scopes": [scope.ScopeItem for scope in device.GetScopes()],
    "hostname": device.GetHostname().Name,
    "year": device.GetSystemDateAndTime().UTCDateTime.Date.Year,
    "protocols": {one.Name: one.Port for one in device.GetNetworkProtocols()},
    "dns": device.GetDNS().FromDHCP,
    "ntp": device.GetNTP().FromDHCP,
    "gateways": len(device.GetNetworkDefaultGateway().IPv4Address),
    "discovery": device.GetDiscoveryMode(),
    "users": {one.Username: one.UserLevel for one in device.GetUsers()},
    "interfaces": [interface.IPv4.Config.Manual[0].Address for interface in device.GetNetworkInterfaces()],
    "services": [service.Namespace for service in device.GetServices({"IncludeCapability": True})],
    "digest": device.GetServiceCapabilities().Security.HttpDigest,
    "capabilities": device.GetCapabilities({"Category": "Media"}).Media.XAddr,
    "profiles": [],
}
assert media.GetServiceCapabilities().SnapshotUri
for profile in media.GetProfiles():
    token = profile.token
    assert media.GetProfile({"ProfileToken": token}) == profile
    encoder = profile.VideoEncoderConfiguration
    assert media.GetVideoEncoderConfiguration({"ConfigurationToken": encoder.token}) == encoder
    options = media.GetVideoEncoderConfigurationOptions({"ConfigurationToken": encoder.token})
    # What the schema lets be anything, zeep takes for that.
    bitrates = options.Extension._value_1[0].find("{*}BitrateRange")
    transport = {"Stream": "RTP-Unicast", "Transport": {"Protocol": "RTSP"}}
    found["profiles"].append({
        "token": token,
        "source": profile.VideoSourceConfiguration.SourceToken,
        "size": [encoder.Resolution.Width, encoder.Resolution.Height],
        "encoding": encoder.Encoding,
        "bitrates": [int(limit.text) for limit in bitrates],
        "sizes": [[size.Width, size.Height] for size in options.H264.ResolutionsAvailable],
        "stream": media.GetStreamUri({"StreamSetup": transport, "ProfileToken": token}).Uri,
        "snapshot": media.GetSnapshotUri({"ProfileToken": token}).Uri,
    })
sources = media.GetVideoSources()
found["sources"] = [source.token for source in sources]
configurations = media.GetVideoSourceConfigurations()
for one in configurations:
    assert media.GetVideoSourceConfiguration({"ConfigurationToken": one.token}) == one
    assert media.GetVideoSourceConfigurationOptions({"ConfigurationToken": one.token}).VideoSourceTokensAvailable
    assert media.GetGuaranteedNumberOfVideoEncoderInstances({"ConfigurationToken": one.token}).TotalNumber > 0
assert len(media.GetVideoEncoderConfigurations()) == len(found["profiles"])


def refusal(call, *arguments):
    try:
        call(*arguments)
    except ONVIFError as error:
        return str(error)
    return None


def change(token, **values):
    encoder = media.GetVideoEncoderConfiguration({"ConfigurationToken": token})
    for name, value in values.items():
        setattr(encoder.RateControl, name, value)
    return refusal(media.SetVideoEncoderConfiguration, {"Configuration": encoder, "ForcePersistence": True})


first = media.GetProfiles()[0].VideoEncoderConfiguration.token
found["unchanged"] = change(first)
found["changed"] = change(first, FrameRateLimit=10, BitrateLimit=900)
rate = media.GetVideoEncoderConfiguration({"ConfigurationToken": first}).RateControl
found["rate"] = [rate.FrameRateLimit, rate.BitrateLimit]
found["outside"] = change(first, BitrateLimit=1)
found["unknown"] = refusal(media.GetOSDs, {})

messages = []
while len(messages) < 3:
    pulled = pull.PullMessages({"Timeout": datetime.timedelta(seconds=5), "MessageLimit": 10}).NotificationMessage
    # Topics are lost to zeep, as there may be more in them than text.
    messages += [message.Message._value_1.find("{*}Source")[0].get("Name") for message in pulled]
    if not pulled:
        break
found["messages"] = messages
assert events.GetEventProperties().FixedTopicSet
assert events.GetServiceCapabilities().WSPullPointSupport
print(json.dumps(found))
