# Asks Slack's API whether it is there; requirements.psd1 brings the module.
Import-Module PSSlack

function handle($context, $payload) {
    @{ result = [bool] (Test-SlackApi) }
}
